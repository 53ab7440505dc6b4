"""Messages sent from workflow and step code, one by one and many together, and received."""

from __future__ import annotations

import asyncio
from typing import Any

from dbos import DBOS, MessageInfo, SendMessage
from dbos.error import DBOSNonExistentWorkflowError

from ..world import Root
from .declaring import Functions, scenario


@scenario(
    Root("sending", "s"),
    Root("receiving", "r", (), True),
    expected={
        "s": ["Non-existent `send` destination workflow ID: nobody", "got it"],
        "r": [["first", "second"], [0, 1, 2], "from a step", "none came", "late"],
    },
)
def messages(version: int) -> Functions:
    @DBOS.step(name="tell")
    def tell() -> None:
        DBOS.send("r", "from a step", "step", idempotency_key="key")
        DBOS.send("r", "from a step", "step", idempotency_key="key")

    @DBOS.workflow(name="sending")
    def sending() -> list[Any]:
        # So that it exists.
        DBOS.get_event("r", "ready", 1000)
        DBOS.send("r", "first")
        DBOS.send("r", "second")
        DBOS.send_bulk([SendMessage("r", number, "bulk") for number in range(3)])
        tell()
        try:
            DBOS.send_bulk([SendMessage("r", "never", "bulk"), SendMessage("nobody", 1)])
        except DBOSNonExistentWorkflowError as error:
            missing = str(error).partition(": ")[2]
        DBOS.get_event("r", "patient", 1000)
        DBOS.send("r", "late", "late")
        return [missing, DBOS.recv("answer", 1000)]

    @DBOS.workflow(name="receiving")
    def receiving() -> list[Any]:
        DBOS.set_event("ready", True)
        untitled = [DBOS.recv(timeout_seconds=1000) for _ in range(2)]
        bulk = [DBOS.recv("bulk", 1000) for _ in range(3)]
        results = [untitled, bulk, DBOS.recv("step", 1000), DBOS.recv("nothing", 5, default="none came")]
        DBOS.set_event("patient", True)
        results.append(DBOS.recv("late", 1000))
        DBOS.send("s", "got it", "answer")
        return results

    return {"sending": sending, "receiving": receiving}


@scenario(Root("serve", "a", ("b", 3)), Root("return", "b", ("a", 3), True), expected={"a": 6, "b": 5})
def ping_pong(version: int) -> Functions:
    @DBOS.workflow(name="serve")
    async def serve(other: str, rounds: int) -> int:
        await DBOS.get_event_async(other, "ready", 1000)
        ball = 0
        for _ in range(rounds):
            await DBOS.send_async(other, ball + 1)
            ball = await DBOS.recv_async(timeout_seconds=1000)
        return ball

    @DBOS.workflow(name="return")
    def back(other: str, rounds: int) -> int:
        DBOS.set_event("ready", True)
        ball = 0
        for _ in range(rounds):
            ball = DBOS.recv(timeout_seconds=1000)
            DBOS.send(other, ball + 1)
        return ball

    return {"serve": serve, "return": back}


@scenario(Root("crowd_of_receivers", "c"), expected={"c": ["alike"] * 4 + ["none"]}, unstable=("DBOS.recv",))
def concurrent_receivers(version: int) -> Functions:
    """Which task gets what is open, so all messages are alike."""

    @DBOS.workflow(name="crowd_of_receivers")
    async def crowd() -> list[str]:
        receivers = [asyncio.ensure_future(DBOS.recv_async("same", 1000)) for _ in range(4)]
        receivers.append(asyncio.ensure_future(DBOS.recv_async("other", 2, default="none")))
        await asyncio.gather(*[DBOS.send_async("c", "alike", "same") for _ in range(2)])
        await DBOS.send_bulk_async([SendMessage("c", "alike", "same")] * 2)
        return list(await asyncio.gather(*receivers))

    return {"crowd_of_receivers": crowd}


@scenario(
    Root("looking", "l"),
    expected={"l": [["1 waits", "2 waits"], 1, ["1 by 4", "2 waits"], 1]},
    unstable=("DBOS.listMessages",),  # They tell times.
)
def listed_messages(version: int) -> Functions:
    @DBOS.workflow(name="looking")
    def looking() -> list[Any]:
        def look() -> list[str]:
            found = DBOS.list_messages("l", topics="t")
            return [f"{m['message']} {'by' if m['received'] else 'waits'}{by(m)}" for m in found]

        def by(message: MessageInfo) -> str:
            return f" {message['received_by_function_id']}" if message["received"] else ""

        DBOS.send("l", 1, "t")
        DBOS.send("l", 2, "t")
        return [look(), DBOS.recv("t"), look(), len(DBOS.list_messages("l", received=False))]

    return {"looking": looking}
