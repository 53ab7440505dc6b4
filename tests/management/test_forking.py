"""Forks: what they copy, what they do not, and how they run (05 section 11.8)."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSContextSetAuth,
    SetEnqueueOptions,
    SetWorkflowAttributes,
    SetWorkflowID,
    SetWorkflowTimeout,
)
from dbos.error import DBOSException, DBOSNonExistentWorkflowError, DBOSWorkflowIDInUseError
from tests.helpers import Gate, relaunch, replay, rows, status_row, step_names, step_rows, wait_until

from .rows_of import add_events, add_message, add_stream, events, history, messages, remains, stream
from .sides import Side, done

Config = dict[str, Any]
executed: list[str] = []


def declare() -> Any:
    executed.clear()

    @DBOS.step(name="note")
    def note(what: str) -> str:
        executed.append(f"{DBOS.workflow_id} {what}")
        return what

    @DBOS.workflow(name="three")
    def three(prefix: str) -> str:
        return "".join(note(prefix + what) for what in "abc")

    return three


def run(function: Any, workflow_id: str, *args: Any) -> Any:
    with SetWorkflowID(workflow_id):
        return function(*args)


@pytest.mark.parametrize(
    ("start_step", "runs"), [(-5, "abc"), (0, "abc"), (1, "abc"), (2, "bc"), (3, "c"), (4, ""), (2**70, "")]
)
def test_a_fork_executes_the_steps_from_its_start_on(
    app: type[DBOS], database_url: str, start_step: int, runs: str
) -> None:
    """05 R88: 1 and less copy nothing, beyond the end everything."""
    assert run(declare(), "w", "x") == "xaxbxc"
    executed.clear()
    handle = DBOS.fork_workflow("w", start_step)
    assert handle.get_result() == "xaxbxc"
    assert executed == [f"{handle.workflow_id} x{what}" for what in runs]
    copied = 3 - len(runs)
    payload = ("function_name", "output", "error", "started_at_epoch_ms", "completed_at_epoch_ms", "serialization")
    source, fork = step_rows(database_url, "w"), step_rows(database_url, handle.workflow_id)
    assert [[row[name] for name in payload] for row in source[:copied]] == [
        [row[name] for name in payload] for row in fork[:copied]
    ]
    assert len(fork) == 3


def test_what_a_fork_takes_over_from_its_source_and_what_not(sides: list[Side], database_url: str) -> None:
    """05 R20, R88, R89, R96, 02 R125."""
    three = declare()
    DBOS.register_queue("mail")
    DBOS.register_queue("held", global_concurrency=0)
    with (
        SetWorkflowID("w"),
        DBOSContextSetAuth("alice", ["admin", "user"]),
        SetWorkflowAttributes({"region": "eu"}),
        SetEnqueueOptions(priority=4, deduplication_id="d"),
        SetWorkflowTimeout(1000),
    ):
        DBOS.enqueue_workflow("mail", three, "x").get_result()
    for side in sides:
        assert bool(status_row(database_url, "w")["was_forked_from"]) is (side is not sides[0])
        handle = side.fork_workflow("w", 3, queue_name="held", queue_partition_key="p", timeout_seconds=12.3456)
        source, fork = status_row(database_url, "w"), status_row(database_url, handle.workflow_id)
        same = ["name", "class_name", "config_name", "application_id", "authenticated_user", "authenticated_roles"]
        same += ["assumed_role", "serialization", "attributes", "application_name"]
        assert [fork[name] for name in same] == [source[name] for name in same]
        assert (fork["status"], fork["queue_name"], fork["queue_partition_key"]) == ("ENQUEUED", "held", "p")
        assert (fork["forked_from"], fork["workflow_timeout_ms"]) == ("w", 12345)
        for dropped in ("owner_xid", "executor_id", "application_version", "parent_workflow_id", "deduplication_id"):
            assert fork[dropped] is None, dropped
        for dropped in ("workflow_deadline_epoch_ms", "schedule_name", "started_at_epoch_ms", "completed_at"):
            assert fork[dropped] is None, dropped
        assert (fork["priority"], fork["recovery_attempts"], bool(fork["was_forked_from"])) == (0, 0, False)
        assert bool(source["was_forked_from"])
        (status,) = side.list_workflows(workflow_ids=[handle.workflow_id])
        assert status.input == {"args": ("x",), "kwargs": {}}
        assert [row["application_name"] for row in step_rows(database_url, handle.workflow_id)] == ["test-app"] * 2
        named = side.fork_workflow("w", 1, application_version="v7")
        row = status_row(database_url, named.workflow_id)
        assert (row["application_version"], row["queue_name"]) == ("v7", "_dbos_internal_queue")
    assert len(DBOS.list_workflows(forked_from="w")) == 2 * len(sides)


def test_an_unowned_source_gives_its_fork_to_the_application_that_forks(app: type[DBOS], database_url: str) -> None:
    """05 R20, R41: inputs may also stand in the status row, as old releases wrote them."""
    run(declare(), "w", "x")
    rows(database_url, "UPDATE workflow_status SET application_name = NULL")
    (stored,) = rows(database_url, "SELECT inputs FROM workflow_input")
    rows(database_url, "DELETE FROM workflow_input")
    rows(database_url, "UPDATE workflow_status SET inputs = %s", stored["inputs"])
    handle = DBOS.fork_workflow("w", 2)
    assert handle.get_result() == "xaxbxc"
    assert status_row(database_url, handle.workflow_id)["application_name"] == "test-app"
    assert {row["application_name"] for row in step_rows(database_url, handle.workflow_id)} == {"test-app"}


def test_events_and_streams_are_those_from_before_the_cut_and_messages_stay(
    sides: list[Side], database_url: str
) -> None:
    """05 R89, 04 R140, R220, R221, R330."""
    run(declare(), "w", "x")
    DBOS.register_queue("held", global_concurrency=0)
    add_events(database_url, "w", (1, "k", "one"), (2, "k", "two"), (2, "m", "m"), (3, "k", "three"), (4, "late", "l"))
    add_stream(database_url, "w", (1, "s1"), (3, "s3"), (2, "s2"))
    add_message(database_url, "w", "read", 1)
    add_message(database_url, "w", "unread")
    for side in sides:
        fork = side.fork_workflow("w", 3, queue_name="held").workflow_id
        assert events(database_url, fork) == {"k": "two", "m": "m"}
        assert history(database_url, fork) == [
            (1, "k", "one", "py_pickle"),
            (2, "k", "two", "py_pickle"),
            (2, "m", "m", "py_pickle"),
        ]
        assert stream(database_url, fork) == [(0, 1, "s1"), (2, 2, "s2")]
        assert messages(database_url, fork) == []
        first = side.fork_workflow("w", 1, queue_name="held").workflow_id
        assert (events(database_url, first), stream(database_url, first), step_rows(database_url, first)) == (
            {},
            [],
            [],
        )
    assert messages(database_url, "w") == ["read", "unread"]
    assert events(database_url, "w") == {"k": "three", "m": "m", "late": "l"}


def test_children_from_before_the_cut_stay_attached_or_are_replaced(sides: list[Side], database_url: str) -> None:
    """05 R89, R90."""

    @DBOS.workflow(name="child")
    def child(number: int) -> int:
        return number

    @DBOS.workflow(name="parent")
    def parent() -> list[int]:
        handles = [DBOS.start_workflow(child, number) for number in (1, 2)]
        return [handle.get_result() for handle in handles]

    assert run(parent, "w") == [1, 2]
    assert run(child, "other", 7) == 7
    kept = DBOS.fork_workflow("w", 3)
    assert kept.get_result() == [1, 2]
    assert [row["child_workflow_id"] for row in step_rows(database_url, kept.workflow_id)] == ["w-1", "w-2"] * 2
    for side, start_step in zip(sides, (3, 5, 3, 5)):
        # Also when the source had their results: the fork awaits those in their place.
        replaced = side.fork_workflow("w", start_step, replacement_children={"w-1": "other", "absent": "x"})
        assert done(replaced.get_result()) == [7, 2]
        recorded = step_rows(database_url, replaced.workflow_id)
        assert [row["child_workflow_id"] for row in recorded] == ["other", "w-2"] * 2
    again = DBOS.fork_workflow("w", 2)
    assert again.get_result() == [1, 2]
    assert [row["child_workflow_id"] for row in step_rows(database_url, again.workflow_id)][:2] == [
        "w-1",
        f"{again.workflow_id}-2",
    ]


def test_a_source_in_any_state_can_be_forked(app: type[DBOS], database_url: str) -> None:
    """05 R88: also a running one, which is not disturbed."""
    gate = Gate()

    @DBOS.workflow(name="held")
    def held() -> str:
        value = DBOS.run_step({"name": "first"}, lambda: DBOS.workflow_id)
        gate.wait()
        return f"{value}!"

    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(held)
    wait_until(lambda: step_names(database_url, "w"))
    fork = DBOS.fork_workflow("w", 2)
    gate.open()
    assert (handle.get_result(), fork.get_result()) == ("w!", "w!")
    for status in ("CANCELLED", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "DELAYED"):
        rows(database_url, "UPDATE workflow_status SET status = %s WHERE workflow_uuid = 'w'", status)
        assert DBOS.fork_workflow("w", 2).get_result() == "w!"


def test_a_fork_takes_the_id_of_its_block_and_refuses_one_in_use(sides: list[Side], database_url: str) -> None:
    """05 R88, 02 R32, R250: typed, and nothing is written."""
    run(declare(), "w", "x")
    for side in sides:
        with SetWorkflowID(f"fork {side}"):
            first, second = side.fork_workflow("w", 2), side.fork_workflow("w", 2)
        assert first.workflow_id == f"fork {side}" != second.workflow_id
        assert done(first.get_result()) == done(second.get_result()) == "xaxbxc"
        count = len(rows(database_url, "SELECT 1 FROM workflow_status"))
        for taken in (f"fork {side}", "w"):
            with SetWorkflowID(taken), pytest.raises(DBOSWorkflowIDInUseError) as refused:
                side.fork_workflow("w", 2)
            assert refused.value.workflow_id == taken
        with SetWorkflowID("never"), pytest.raises(DBOSNonExistentWorkflowError) as missing:
            side.fork_workflow("absent", 1)
        assert (missing.value.destination, missing.value.destination_id) == ("target", "absent")
        assert remains(database_url, "never") == []
        assert len(rows(database_url, "SELECT 1 FROM workflow_status")) == count


def test_a_fork_meets_what_a_workflow_of_its_id_has_left_behind(app: type[DBOS], database_url: str) -> None:
    """05 R42: other programs may delete status rows and leave the rest to a sweep. A fork takes no foreign step."""
    run(declare(), "w", "x")
    run(declare(), "v", "y")
    rows(database_url, "DELETE FROM workflow_status WHERE workflow_uuid = 'v'")
    with SetWorkflowID("v"), pytest.raises(DBOSException, match="refused the fork 'v' of 'w'"):
        DBOS.fork_workflow("w", 3)
    assert "workflow_status" not in remains(database_url, "v")
    DBOS.delete_workflow("v")
    with SetWorkflowID("v"):
        assert DBOS.fork_workflow("w", 3).get_result() == "xaxbxc"


def test_a_fork_runs_on_the_version_it_names_or_the_latest(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R89."""
    three = declare()
    run(three, "w", "x")
    fork = DBOS.fork_workflow("w", 2, application_version="v2")
    assert status_row(database_url, fork.workflow_id)["application_version"] == "v2"
    relaunch(config | {"application_version": "v2"})
    assert DBOS.retrieve_workflow(fork.workflow_id).get_result() == "xaxbxc"
    latest = DBOS.fork_workflow("w", 1)
    assert latest.get_result() == "xaxbxc"
    assert status_row(database_url, latest.workflow_id)["application_version"] == "v2"


def test_a_timeout_of_a_fork_counts_from_its_start(app: type[DBOS], database_url: str) -> None:
    """05 R88."""

    @DBOS.workflow()
    def wf(seconds: float) -> None:
        DBOS.run_step({"name": "first"}, lambda: None)
        DBOS.sleep(seconds)

    run(wf, "w", 0.001)
    fork = DBOS.fork_workflow("w", 2, timeout_seconds=100)
    fork.get_result()
    row = status_row(database_url, fork.workflow_id)
    assert row["workflow_deadline_epoch_ms"] - row["started_at_epoch_ms"] in range(99_000, 100_100)


# --- in workflow code


def test_in_workflow_code_a_fork_is_two_steps_and_its_id_comes_from_the_step(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """05 R67, R91 in ours: a replay makes no second fork, and consumes the id of its block."""
    run(declare(), "w", "x")

    @DBOS.workflow()
    def forking() -> list[str]:
        first = DBOS.fork_workflow("w", 2)
        with SetWorkflowID("named"):
            second = DBOS.fork_workflow("w", 2)
            third = DBOS.fork_workflow("w", 2)
        return [handle.workflow_id for handle in (first, second, third) if handle.get_result() == "xaxbxc"]

    assert run(forking, "f") == ["f-1", "named", "f-5"]
    assert list(step_names(database_url, "f").values()) == [
        *["DBOS.forkWorkflow", "DBOS.getStatus"] * 3,
        *["DBOS.getResult"] * 3,
    ]
    count = len(rows(database_url, "SELECT 1 FROM workflow_status"))
    assert replay(config, "f") == ["f-1", "named", "f-5"]
    assert len(rows(database_url, "SELECT 1 FROM workflow_status")) == count


def test_a_rewound_workflow_makes_another_fork(app: type[DBOS], database_url: str) -> None:
    """The id that its step would give is in use: by the fork of the first time."""
    run(declare(), "w", "x")

    @DBOS.workflow()
    def forking() -> str:
        return DBOS.fork_workflow("w", 2).workflow_id

    assert run(forking, "f") == "f-1"
    second = DBOS.rewind_workflow("f").get_result()
    assert second != "f-1"
    assert {status.workflow_id for status in DBOS.list_workflows(forked_from="w")} == {"f-1", second}


def test_a_failing_fork_uses_one_step_id_when_blocking(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R68, 02 R90: the error is recorded."""

    @DBOS.workflow()
    def forking() -> str:
        try:
            DBOS.fork_workflow("absent", 1)
        except DBOSNonExistentWorkflowError as error:
            text = str(error)
            return DBOS.run_step({"name": "after"}, lambda: text)
        return ""

    assert "absent" in run(forking, "f")
    assert step_names(database_url, "f") == {1: "DBOS.forkWorkflow", 2: "after"}
    assert "absent" in replay(config, "f")


async def test_a_failing_fork_uses_two_step_ids_when_async(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R68, 02 R90."""

    @DBOS.step(name="after")
    async def after(text: str) -> str:
        return text

    @DBOS.workflow()
    async def forking() -> str:
        try:
            await DBOS.fork_workflow_async("absent", 1)
        except DBOSNonExistentWorkflowError as error:
            return await after(str(error))
        return ""

    with SetWorkflowID("f"):
        assert "absent" in await forking()
    assert step_names(database_url, "f") == {1: "DBOS.forkWorkflow", 3: "after"}


async def test_forks_from_async_code(app: type[DBOS], database_url: str) -> None:
    """05 R63, R65."""
    three = declare()

    @DBOS.workflow()
    async def forking() -> list[Any]:
        handles = [await DBOS.fork_workflow_async("w", step) for step in (1, 3)]
        return [handles[0].workflow_id, *[await handle.get_result() for handle in handles]]

    with SetWorkflowID("w"):
        await (await DBOS.start_workflow_async(three, "x")).get_result()
    with SetWorkflowID("outside"):
        handle = await DBOS.fork_workflow_async("w", 2)
    assert (handle.workflow_id, await handle.get_result()) == ("outside", "xaxbxc")
    with SetWorkflowID("f"):
        assert await forking() == ["f-1", "xaxbxc", "xaxbxc"]


# --- arguments


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"start_step": True}, "start_step"),
        ({"start_step": "2"}, "start_step"),
        ({"start_step": 1.5}, "start_step"),
        ({"start_step": None}, "start_step"),
        ({"workflow_id": 5}, "workflow id"),
        ({"workflow_id": "a\0b"}, "workflow id"),
        ({"application_version": 3}, "application version"),
        ({"queue_name": ["q"]}, "queue name"),
        ({"queue_name": "q\0"}, "queue name"),
        ({"queue_partition_key": 1}, "partition key"),
        ({"replacement_children": ["a"]}, "replacement_children"),
        ({"replacement_children": {"a": 1}}, "replacement_children"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": -1}, "timeout_seconds"),
        ({"timeout_seconds": "1"}, "timeout_seconds"),
        ({"timeout_seconds": float("nan")}, "timeout_seconds"),
        ({"timeout_seconds": True}, "timeout_seconds"),
        ({"shard_key": "s"}, "shard key"),
    ],
)
def test_arguments_without_a_meaning_are_refused(sides: list[Side], given: dict[str, Any], named: str) -> None:
    """05 R88, R92, section 0."""
    for side in sides:
        with pytest.raises(DBOSException, match=named):
            side.fork_workflow(**({"workflow_id": "w", "start_step": 1} | given))
    assert DBOS.list_workflows() == []


def test_an_endless_timeout_is_a_long_one(app: type[DBOS], database_url: str) -> None:
    run(declare(), "w", "x")
    fork = DBOS.fork_workflow("w", 4, timeout_seconds=float("inf"))
    fork.get_result()
    assert status_row(database_url, fork.workflow_id)["workflow_deadline_epoch_ms"] == 2**63 - 1
