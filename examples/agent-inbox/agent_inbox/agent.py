"""The agent: plan, look things up, draft, ask a person, send. One durable workflow per letter.

Nothing in here deals with crashes. Every finished step is a checkpoint; an agent that was cut off goes on behind the
last of them, and one that waits for a person waits until the moment first planned, whatever happens to the process.
"""

import os
import time
from pathlib import Path
from typing import Any, TypedDict

from dbos import DBOS

from . import desk, model
from .desk import Letter

STATUS = "status"  # an event: in which phase the agent is
PROGRESS = "progress"  # a stream: what it did so far, token by token
DECISION = "decision"  # a topic: what the person says

OUTBOX = Path(os.environ.get("INBOX_DATA", "inbox-data")) / "outbox"


class Decision(TypedDict):
    """The answer of a person."""

    approved: bool
    note: str


class Outcome(TypedDict):
    """How it ended: phase `sent`, `rejected` or `expired`."""

    phase: str
    note: str


@DBOS.workflow()
async def answer_letter(letter: Letter, approval_seconds: float) -> Outcome:
    """Answer a letter; nothing leaves the house unless a person approves it within the time."""
    await enter("planning")
    tools = await plan(letter)
    await tell("plan", tools=tools)

    await enter("looking up")
    findings: dict[str, str] = {}
    for tool in tools:
        findings[tool] = await look_up(tool, letter)
        await tell("finding", tool=tool, text=findings[tool])

    await enter("drafting")
    draft = await write_draft(letter, findings)

    decision = await ask_a_person(approval_seconds)
    if decision is None:
        return await finish("expired", "Nobody answered in time.")
    if not decision["approved"]:
        return await finish("rejected", decision["note"])

    await enter("sending")
    await send(letter, draft)
    return await finish("sent", decision["note"])


# --- steps


@DBOS.step(retries_allowed=True)
async def plan(letter: Letter) -> list[str]:
    return await model.plan(letter)


@DBOS.step(retries_allowed=True)
async def look_up(tool: str, letter: Letter) -> str:
    return desk.TOOLS[tool](letter)


@DBOS.step(retries_allowed=True)
async def write_draft(letter: Letter, findings: dict[str, str]) -> str:
    """Everybody can read along. A step that is cut off is run again, so the first entry says: a draft begins."""
    await tell("draft")
    draft = ""
    async for token in model.write(letter, findings):
        draft += token
        await tell("token", text=token)
    return draft


@DBOS.step()
async def now_ms() -> int:
    return int(time.time() * 1000)


@DBOS.step(retries_allowed=True)
async def send(letter: Letter, text: str) -> str:
    """The key is the same whenever this step of this workflow runs, so the letter goes out once."""
    return desk.send(OUTBOX, f"{DBOS.workflow_id}-{DBOS.step_id}", letter, text)


# --- telling people, asking them


async def ask_a_person(seconds: float) -> Decision | None:
    """Wait for the decision; None when nobody has decided in time."""
    await enter("waiting", expires_at_ms=await now_ms() + int(seconds * 1000))
    decision: Decision | None = await DBOS.recv_async(DECISION, timeout_seconds=seconds)
    return decision


async def enter(phase: str, **details: Any) -> None:
    """The event says where the agent is now, the stream how it came there."""
    await DBOS.set_event_async(STATUS, {"phase": phase, **details})
    await tell("phase", phase=phase, **details)


async def tell(kind: str, **details: Any) -> None:
    await DBOS.write_stream_async(PROGRESS, {"kind": kind, **details})


async def finish(phase: str, note: str) -> Outcome:
    await enter(phase, note=note)
    return {"phase": phase, "note": note}
