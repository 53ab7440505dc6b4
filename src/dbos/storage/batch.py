"""The records of a batch as the statements that write them, and as news for other processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from ..records import (
    EFFECT_TYPES,
    Effect,
    EventSet,
    MessageConsumed,
    MessagesSent,
    Record,
    StepCompleted,
    StreamWritten,
    WorkflowFinished,
    WorkflowStarted,
)
from .encoding import pair
from .messages import EffectWork, consumption, sending


class Work(NamedTuple):
    """A statement of a batch: for each of `rows` (see `records`) it changes `changes` rows of the database.

    `lone` is the statement for a single row, where there is one (see `sql/<backend>/lone.sql`). `is_effect` tells that
    it is about what steps do, not about their rows, and takes no time. `more_changes` come on SQLite on top of those of
    the rows.
    """

    name: str
    records: Sequence[Record]
    rows: list[dict[str, Any]]
    changes: int
    lone: str | None = None
    is_effect: bool = False
    more_changes: int = 0


# Statements for effects: of a batch, for a single one, and how many rows they change on SQLite.
EFFECTS: dict[type[Effect], tuple[str, str, int]] = {
    EventSet: ("set_events", "set_event", 2),
    StreamWritten: ("write_stream_entries", "write_stream_entry", 1),
}


# Effects whose statements write their step rows too, since both depend on what they find.
WITH_STEPS: dict[type[Effect], Callable[[Sequence[Any]], EffectWork]] = {
    MessagesSent: sending,
    MessageConsumed: consumption,
}


# Statements for a batch of one record (see `sql/<backend>/lone.sql`), and how many rows they change.
LONE = {"record_step": 1, "start_workflow": 2, "enqueue_workflow": 2, "finish_workflow": 2}


def lone_statement(record: Record) -> tuple[str, int] | None:
    """The statement for a record that is alone, where there is one."""
    name: str | None = None
    if type(record) is StepCompleted:
        name = "record_step" if record.also is None else None
    elif type(record) is WorkflowFinished:
        name = "finish_workflow"
    elif type(record) is WorkflowStarted and record.parent is None:
        name = "start_workflow" if record.queue is None else "enqueue_workflow"
    return None if name is None else (name, LONE[name])


# What other processes may wait for: "finished" workflows by id, "queued" ones and places that are "freed" by the name
# of their queue, "event"s and "stream"s by a pair of workflow and key.
News = Mapping[str, Sequence[str]]
NOTHING_NEW: News = {}


def work_of(records: Sequence[Record], *, effects_first: bool) -> list[Work]:
    """The statements for a batch, in the order in which they run."""
    roots: list[WorkflowStarted] = []
    children: list[WorkflowStarted] = []
    steps: list[Record] = []
    step_rows: list[dict[str, Any]] = []
    effects: dict[type[Effect], list[Effect]] = {}
    finishes: dict[tuple[str, str], WorkflowFinished] = {}
    queued = 0
    for record in records:
        step: StepCompleted | None = None
        if type(record) is StepCompleted:
            step = record
        elif type(record) is WorkflowFinished:
            # Of several outcomes of one execution the first counts; a statement that saw both would mix them. Those of
            # different executions stay: only the one whose token owns the workflow is written.
            finishes.setdefault((record.workflow_id, record.owner_token), record)
        elif type(record) is WorkflowStarted:
            (roots if record.parent is None else children).append(record)
            queued += record.parent is None and record.queue is not None
        elif isinstance(record, EFFECT_TYPES):
            effects.setdefault(type(record), []).append(record)
            step = None if type(record) in WITH_STEPS else record.step
        while step is not None:
            steps.append(record)
            step_rows.append(step.row())
            step = step.also
    work: list[Work] = []
    if roots:
        rows = [record.row() for record in roots]
        # The statements for a single row differ.
        lone = "start_workflow" if queued == 0 else "enqueue_workflow" if queued == len(roots) else None
        work.append(Work("start_workflows", roots, rows, 2, lone))
    if children:
        rows = [record.row() for record in children]
        work.append(Work("start_children", children, rows, 2))
        work.append(Work("record_child_starts", children, rows, 1))
    if steps and not effects_first:
        work.append(Work("record_steps", steps, step_rows, 1, "record_step"))
    for kind, found in effects.items():
        if kind in WITH_STEPS:
            name, lone, rows, changes, more_changes = WITH_STEPS[kind](found)
            work.append(Work(name, found, rows, changes, lone, more_changes=more_changes))
            continue
        name, lone, changes = EFFECTS[kind]
        # One statement writes nothing twice; the last one counts.
        written = cast("list[Any]", found)
        rows = list({record.identity(): record.row() for record in written}.values())
        work.append(Work(name, found, rows, changes, lone, is_effect=True))
    if steps and effects_first:
        work.append(Work("record_steps", steps, step_rows, 1, "record_step"))
    if finishes:
        outcomes = list(finishes.values())
        work.append(Work("finish_workflows", outcomes, [r.row() for r in outcomes], 2, "finish_workflow"))
    return work


def news_of(records: Sequence[Record]) -> News:
    """What other processes may wait for in a batch."""
    news: dict[str, list[str]] = {}
    for record in records:
        if type(record) is WorkflowFinished:
            news.setdefault("finished", []).append(record.workflow_id)
            if record.freed_queue is not None:
                news.setdefault("freed", []).append(record.freed_queue)
        elif type(record) is WorkflowStarted:
            if record.queue is not None and record.status == "ENQUEUED":
                news.setdefault("queued", []).append(record.queue.queue_name)
        elif type(record) is EventSet:
            news.setdefault("event", []).append(pair(record.workflow_id, record.key))
        elif type(record) is StreamWritten:
            news.setdefault("stream", []).append(pair(record.workflow_id, record.key))
    return {kind: list(dict.fromkeys(names)) for kind, names in news.items()}
