"""Events published in workflow and step code, and waited for."""

from __future__ import annotations

import asyncio
from typing import Any

from dbos import DBOS

from ..world import Root
from .declaring import Functions, scenario


@scenario(
    Root("publishing", "p"),
    Root("reading", "r", (), True),
    expected={"p": {"done": True, "stage": 2, "step": "in a step"}, "r": [1, "in a step", "ended", {"done": True}]},
)
def events(version: int) -> Functions:
    @DBOS.step(name="announce")
    def announce() -> None:
        DBOS.set_event("step", "first")
        DBOS.set_event("step", "in a step")

    @DBOS.workflow(name="publishing")
    def publishing() -> dict[str, Any]:
        DBOS.set_event("stage", 1)
        # The reader has it by then.
        assert DBOS.get_event("r", "seen", 1000) == "stage"
        announce()
        DBOS.set_event("stage", 2)
        DBOS.set_event("done", True)
        return DBOS.get_all_events("p")

    @DBOS.workflow(name="reading")
    def reading() -> list[Any]:
        results = [DBOS.get_event("p", "stage", 1000)]
        DBOS.set_event("seen", "stage")
        DBOS.get_event("p", "done", 1000, while_active=True)
        results += [
            DBOS.get_event("p", "step", 0),
            DBOS.get_event("p", "nothing", 1000, default="ended", while_active=True),
        ]
        results.append({key: value for key, value in DBOS.get_all_events("p").items() if key == "done"})
        return results

    return {"publishing": publishing, "reading": reading}


@scenario(Root("crowd", "w"), expected={"w": {"k0": 9, "k1": 10, "k2": 11}})
def many_events_at_once(version: int) -> Functions:
    @DBOS.workflow(name="crowd")
    async def crowd() -> dict[str, Any]:
        await asyncio.gather(*[DBOS.set_event_async(f"k{i % 3}", i) for i in range(12)])
        return await DBOS.get_all_events_async("w")

    return {"crowd": crowd}
