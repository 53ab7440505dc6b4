"""What the page needs to know of the agents, and the two things it can do: start one, and decide.

All of it is asked of the workflows themselves. There is no table of agents, of approvals or of messages.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from dbos import DBOS, SetWorkflowID, WorkflowStatus
from dbos.error import DBOSStreamTimeoutError
from typing_extensions import TypedDict

from .agent import DECISION, PROGRESS, STATUS, Decision, answer_letter
from .desk import Letter

QUIET_SECONDS = 10.0
# After a restart of the server a workflow is ENQUEUED for a moment, until it goes on.
ACTIVE = ("PENDING", "ENQUEUED", "DELAYED")


class Agent(TypedDict):
    """An agent as the page shows it."""

    id: str
    letter: Letter
    phase: str
    note: str
    started_at_ms: int
    expires_at_ms: int | None


class NoSuchAgent(Exception):
    """Nobody has started an agent under this id."""


class NotWaiting(Exception):
    """The agent does not wait for a decision, or no longer."""


async def agents(limit: int) -> list[Agent]:
    """The agents, the newest first."""
    workflows = await DBOS.list_workflows_async(name=answer_letter.__qualname__, sort_desc=True, limit=limit)
    return await asyncio.gather(*[_describe(workflow) for workflow in workflows])


async def agent(agent_id: str) -> Agent:
    """One agent.

    Raises:
        NoSuchAgent: there is none under this id.
    """
    workflow = await DBOS.get_workflow_status_async(agent_id)
    if workflow is None:
        raise NoSuchAgent(f"there is no agent {agent_id}")
    return await _describe(workflow)


async def start(agent_id: str, letter: Letter, approval_seconds: float) -> None:
    """Start an agent. Starting it again under its id does nothing: a click that was repeated starts one."""
    with SetWorkflowID(agent_id):
        await DBOS.start_workflow_async(answer_letter, letter, approval_seconds)


async def decide(agent_id: str, decision: Decision) -> None:
    """Send a decision to an agent that waits for it.

    The first one counts, however often somebody clicks: all have the same idempotency key.

    Raises:
        NotWaiting: it does not wait; the text says why.
        NoSuchAgent: there is none under this id.
    """
    phase = (await agent(agent_id))["phase"]
    if phase != "waiting":
        raise NotWaiting(f"This agent does not wait for a decision. Its state is: {phase}.")
    await DBOS.send_async(agent_id, decision, DECISION, idempotency_key="decision")


async def progress(agent_id: str, offset: int) -> AsyncIterator[tuple[int, Any] | None]:
    """What an agent has done and does, with the offsets, from an offset on, until its end.

    None when nothing has happened for a while.
    """
    while True:
        try:
            entries = DBOS.read_stream_async(agent_id, PROGRESS, offset=offset, timeout_seconds=QUIET_SECONDS)
            async with aclosing(entries):
                async for entry in entries:
                    yield offset, entry
                    offset += 1
            return
        except DBOSStreamTimeoutError:
            yield None


async def _describe(workflow: WorkflowStatus) -> Agent:
    assert workflow.input is not None
    letter, _ = workflow.input["args"]
    if workflow.status == "SUCCESS":
        status: dict[str, Any] = dict(workflow.output or {})
    elif workflow.status in ACTIVE:
        event = await DBOS.get_event_async(workflow.workflow_id, STATUS, timeout_seconds=0)
        status = event or {"phase": "planning"}
    elif workflow.status == "CANCELLED":
        status = {"phase": "cancelled"}
    else:
        status = {"phase": "failed", "note": str(workflow.error)}
    return {
        "id": workflow.workflow_id,
        "letter": letter,
        "phase": status["phase"],
        "note": status.get("note", ""),
        "started_at_ms": workflow.created_at or int(time.time() * 1000),
        "expires_at_ms": status.get("expires_at_ms"),
    }
