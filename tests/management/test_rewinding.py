"""Rewinding: the same workflow again from a step on (05 section 11.9)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, SetWorkflowTimeout
from dbos.error import DBOSException, DBOSNonExistentWorkflowError
from tests.helpers import Gate, relaunch, replay, rows, status_row, step_names, step_rows

from .rows_of import (
    CLOSED,
    add_events,
    add_message,
    add_stream,
    add_workflow,
    events,
    history,
    messages,
    remains,
    stream,
)
from .sides import Side, done
from .test_forking import declare, executed, run

Config = dict[str, Any]


@pytest.mark.parametrize(("start_step", "runs"), [(None, "abc"), (1, "abc"), (3, "c"), (4, ""), (2**70, "")])
def test_a_rewound_workflow_executes_the_steps_from_there_on(
    app: type[DBOS], database_url: str, start_step: int | None, runs: str
) -> None:
    """05 R92: the same id; beyond the end everything is replayed."""
    run(declare(), "w", "x")
    before = step_rows(database_url, "w")
    executed.clear()
    assert DBOS.rewind_workflow("w", start_step=start_step).get_result() == "xaxbxc"
    assert executed == [f"w x{what}" for what in runs]
    after = step_rows(database_url, "w")
    kept = 3 - len(runs)
    assert after[:kept] == before[:kept]
    assert len(after) == 3


def test_what_is_forgotten_and_what_stays(sides: list[Side], database_url: str) -> None:
    """05 R93, 04 R141, R222, R331, 02 R125."""
    three = declare()
    DBOS.register_queue("held", global_concurrency=0)
    for side in sides:
        w = f"{side}"
        with SetWorkflowTimeout(1000):
            run(three, w, "x")
        add_events(database_url, w, (1, "k", "one"), (3, "k", "three"), (1, "early", "e"), (4, "late", "l"))
        rows(
            database_url,
            "INSERT INTO workflow_events (workflow_uuid, key, value) VALUES (%s, 'without history', 'stays')",
            w,
        )
        add_stream(database_url, w, (1, CLOSED), (2, "kept"), (3, CLOSED), (3, "behind the end"), (3, CLOSED))
        # A value of an application that looks like the end of a stream.
        rows(database_url, "UPDATE streams SET serialization = 'custom' WHERE \"offset\" = 4")
        add_message(database_url, w, f"{w} read early", 2)
        add_message(database_url, w, f"{w} read late", 3)
        add_message(database_url, w, f"{w} unread")
        side.rewind_workflow(w, start_step=3, queue_name="held", queue_partition_key="p")
        assert list(step_names(database_url, w)) == [1, 2]
        assert events(database_url, w) == {"k": "one", "early": "e", "without history": "stays"}
        assert [entry[:2] for entry in history(database_url, w)] == [(1, "early"), (1, "k")]
        assert stream(database_url, w) == [(0, 1, CLOSED), (1, 2, "kept"), (3, 3, "behind the end"), (4, 3, CLOSED)]
        assert messages(database_url, w) == [f"{w} read early"]
        assert "workflow_output" not in remains(database_url, w)
        row = status_row(database_url, w)
        assert (row["status"], row["queue_name"], row["queue_partition_key"]) == ("ENQUEUED", "held", "p")
        assert (row["recovery_attempts"], row["application_version"], row["workflow_timeout_ms"]) == (
            0,
            "v1",
            1_000_000,
        )
        for cleared in (
            "owner_xid",
            "workflow_deadline_epoch_ms",
            "deduplication_id",
            "completed_at",
            "output",
            "error",
        ):
            assert row[cleared] is None, cleared


@pytest.mark.parametrize("status", ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"])
def test_whatever_has_ended_can_be_rewound(sides: list[Side], database_url: str, status: str) -> None:
    """05 R92."""
    run(declare(), "w", "x")
    for side in sides:
        rows(database_url, "UPDATE workflow_status SET status = %s", status)
        executed.clear()
        assert done(side.rewind_workflow("w").get_result()) == "xaxbxc"
        assert executed == ["w xa", "w xb", "w xc"]


@pytest.mark.parametrize("status", ["PENDING", "ENQUEUED", "DELAYED"])
def test_what_has_not_ended_is_not_rewound(sides: list[Side], database_url: str, status: str) -> None:
    """05 R92."""
    run(declare(), "w", "x")
    rows(database_url, "UPDATE workflow_status SET status = %s, application_version = 'v0'", status)
    before = (status_row(database_url, "w"), step_rows(database_url, "w"))
    for side in sides:
        with pytest.raises(DBOSException, match=f"{status}.*Cancel it first"):
            side.rewind_workflow("w")
    assert (status_row(database_url, "w"), step_rows(database_url, "w")) == before


def test_of_several_rewinds_at_the_same_time_one_is_done(sides: list[Side], database_url: str) -> None:
    """05 R92, R109: the others find that it has not ended any more."""
    add_workflow(database_url, "w", "SUCCESS")
    together, answers = threading.Barrier(len(sides)), list[str]()

    def rewind(side: Side) -> None:
        together.wait(60)
        try:
            side.rewind_workflow("w", queue_name="nowhere")
            answers.append("rewound")
        except DBOSException:
            answers.append("refused")

    threads = [threading.Thread(target=rewind, args=(side,)) for side in sides]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(answers) == ["refused", "refused", "refused", "rewound"]


def test_arguments_of_a_rewind(sides: list[Side]) -> None:
    """05 R92."""
    wrong: list[dict[str, Any]] = [{"start_step": True}, {"start_step": "1"}, {"queue_name": 1}]
    for side in sides:
        for step in (0, -1):
            with pytest.raises(ValueError, match="from 1 on"):
                side.rewind_workflow("w", start_step=step)
        for given in (*wrong, {"application_version": 1}, {"queue_partition_key": 1}, {"shard_key": "s"}):
            with pytest.raises(DBOSException):
                side.rewind_workflow("w", **given)
        with pytest.raises(DBOSNonExistentWorkflowError, match="absent"):
            side.rewind_workflow("absent")


def test_a_rewound_workflow_can_be_given_another_version(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R93."""
    run(declare(), "w", "x")
    DBOS.rewind_workflow("w", application_version="v2")
    assert status_row(database_url, "w")["application_version"] == "v2"
    relaunch(config | {"application_version": "v2"})
    assert DBOS.retrieve_workflow("w").get_result() == "xaxbxc"


def test_the_execution_of_a_cancelled_and_rewound_workflow_writes_nothing_more(
    app: type[DBOS], database_url: str
) -> None:
    """05 R16, R107: it delivers what the new execution records."""
    gates = [Gate(), Gate()]
    entered = [Gate(), Gate()]
    count: list[int] = []

    @DBOS.workflow()
    def wf() -> int:
        number = len(count)
        count.append(number)

        def body() -> int:
            entered[number].open()
            gates[number].wait()
            return number

        return DBOS.run_step({"name": "held"}, body)

    with SetWorkflowID("w"):
        first = DBOS.start_workflow(wf)
    entered[0].wait()
    DBOS.cancel_workflow("w")
    second = DBOS.rewind_workflow("w")
    entered[1].wait()
    gates[0].open()
    gates[1].open()
    assert (first.get_result(), second.get_result()) == (1, 1)
    assert [row["function_name"] for row in step_rows(database_url, "w")] == ["held"]


def test_a_cancelled_rewound_workflow_does_not_remember_its_queue(app: type[DBOS], database_url: str) -> None:
    """05 R93: a rewind names the queue or takes none; what was noted for a resume is void."""
    three = declare()
    DBOS.register_queue("held", global_concurrency=0)
    with SetWorkflowID("w"):
        DBOS.enqueue_workflow("held", three, "x")
    DBOS.cancel_workflow("w")
    DBOS.rewind_workflow("w", queue_name="held")
    assert DBOS.list_queued_workflows(queue_name="held")[0].workflow_id == "w"
    DBOS.cancel_workflow("w")
    DBOS.rewind_workflow("w").get_result()
    DBOS.rewind_workflow("w", queue_name="held")
    DBOS.cancel_workflow("w")
    DBOS.resume_workflow("w")
    assert status_row(database_url, "w")["queue_name"] == "held"


def test_in_workflow_code_a_rewind_is_one_step(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R67, R68, 03 R106: what is refused is recorded too."""
    run(declare(), "w", "x")

    @DBOS.workflow()
    def rewinding() -> list[str]:
        results = [DBOS.rewind_workflow("w", start_step=2).get_result()]
        for refused in ("absent", DBOS.workflow_id or ""):
            try:
                DBOS.rewind_workflow(refused)
            except DBOSException as error:
                results.append(type(error).__name__)
        return results

    executed.clear()
    expected = ["xaxbxc", "DBOSNonExistentWorkflowError", "DBOSException"]
    assert run(rewinding, "r") == expected
    names = ["DBOS.rewindWorkflow", "DBOS.getResult", "DBOS.rewindWorkflow", "DBOS.rewindWorkflow"]
    assert list(step_names(database_url, "r").values()) == names
    assert replay(config, "r") == expected
    assert executed == ["w xb", "w xc"]


async def test_a_rewind_from_async_code(app: type[DBOS], database_url: str) -> None:
    """05 R63."""
    three = declare()
    with SetWorkflowID("w"):
        await (await DBOS.start_workflow_async(three, "x")).get_result()
    executed.clear()
    handle = await DBOS.rewind_workflow_async("w", start_step=3)
    assert (await handle.get_result(), executed) == ("xaxbxc", ["w xc"])
