"""Streams written in workflow and step code, and read in workflow code while they grow."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from dbos import DBOS
from dbos.error import DBOSStreamClosedError, DBOSStreamEndedError, DBOSStreamTimeoutError

from ..database import STREAM_OF_STEPS
from ..world import Root
from .declaring import Functions, scenario

_numbers = itertools.count()


@scenario(
    Root("writing", "w"),
    Root("reading", "r", (), True),
    expected={"w": "written", "r": [0, 1, None, "three", 1, "ended", "late", ["late"]]},
)
def streams(version: int) -> Functions:
    @DBOS.workflow(name="writing")
    def writing() -> str:
        DBOS.set_event("begun", True)
        for value in (0, 1, None, "three"):
            DBOS.write_stream("k", value)
        DBOS.close_stream("k")
        # The reader has seen the end by then.
        DBOS.get_event("r", "seen", 1000)
        DBOS.write_stream("late", "late")
        return "written"

    @DBOS.workflow(name="reading")
    def reading() -> list[Any]:
        DBOS.get_event("w", "begun", 1000)
        results = list(DBOS.read_stream("w", "k"))
        results.append(DBOS.read_stream_offset("w", "k", 1))
        try:
            DBOS.read_stream_offset("w", "k", 9)
        except DBOSStreamEndedError:
            results.append("ended")
        try:
            next(DBOS.read_stream("w", "late", timeout_seconds=0.5))
        except DBOSStreamTimeoutError:
            DBOS.set_event("seen", True)
        results.append(DBOS.read_stream_offset("w", "late", 0))
        return [*results, list(DBOS.read_stream("w", "late"))]

    return {"writing": writing, "reading": reading}


@scenario(Root("closing", "w"), expected={"w": ["written", "2 is late", "3 is late", [1]]})
def closed_streams(version: int) -> Functions:
    def append(value: int) -> str:
        try:
            DBOS.write_stream("k", value, must_be_open=True)
        except DBOSStreamClosedError:
            return f"{value} is late"
        return "written"

    @DBOS.step(name="append")
    def append_in_step(value: int) -> str:
        return append(value)

    @DBOS.workflow(name="closing")
    def closing() -> list[Any]:
        results: list[Any] = [append(1)]
        DBOS.close_stream("k")
        results += [append_in_step(2), append(3)]
        return [*results, list(DBOS.read_stream("w", "k"))]

    return {"closing": closing}


@scenario(Root("crowd", "w"), expected={"w": [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]})
def many_entries_at_once(version: int) -> Functions:
    @DBOS.workflow(name="crowd")
    async def crowd() -> list[list[int]]:
        await asyncio.gather(*[DBOS.write_stream_async(f"k{i % 2}", i) for i in range(12)])
        await asyncio.gather(*[DBOS.close_stream_async(f"k{i}") for i in range(2)])
        first = [value async for value in DBOS.read_stream_async("w", "k0")]
        return [first, [value async for value in DBOS.read_stream_async("w", "k1")]]

    return {"crowd": crowd}


@scenario(Root("stepping", "w"), expected={"w": 3})
def streams_of_steps(version: int) -> Functions:
    @DBOS.step(name="one by one")
    async def one_by_one() -> None:
        for value in (next(_numbers), ".", "."):
            await DBOS.write_stream_async(STREAM_OF_STEPS, value)

    @DBOS.step(name="together")
    async def together() -> None:
        values = (next(_numbers), ".", ".")
        await asyncio.gather(*[DBOS.write_stream_async(STREAM_OF_STEPS, value) for value in values])

    @DBOS.workflow(name="stepping")
    async def stepping() -> int:
        for value in range(3):
            await DBOS.write_stream_async("body", value)
            await one_by_one()
            await together()
        await DBOS.close_stream_async("body")
        return len([value async for value in DBOS.read_stream_async("w", "body", offset=1, timeout_seconds=0)]) + 1

    return {"stepping": stepping}
