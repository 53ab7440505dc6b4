"""Options of an enqueue, where they apply and what they write (03 sections 4.2 to 4.5)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSContextSetAuth,
    Debouncer,
    EnqueueOptions,
    SetEnqueueOptions,
    SetWorkflowID,
    SetWorkflowTimeout,
)
from dbos.error import DBOSConflictingWorkflowError, DBOSException, DBOSQueueDeduplicatedError
from tests.helpers import (
    NOWHERE,
    declare_echo,
    make_pending,
    relaunch,
    replay,
    rows,
    status_row,
    step_names,
    wait_for_status,
)
from tests.schedules.recording import the_engine

Config = dict[str, Any]

BY_NAME: EnqueueOptions = {"workflow_name": "echo", "queue_name": NOWHERE}


# --- reserved names


def test_a_reserved_name_may_be_enqueued_on_resumed_to_and_scheduled_on(app: type[DBOS], database_url: str) -> None:
    """03 R2: the prefix is refused only where queues are registered."""
    echo = declare_echo()
    internal = "_dbos_internal_queue"
    assert DBOS.enqueue_workflow(internal, echo, 1).get_result() == 1
    named: EnqueueOptions = {"workflow_name": "echo", "queue_name": internal}
    assert DBOS.enqueue_workflow_with_options(named, 2).get_result() == 2
    parked = DBOS.enqueue_workflow("_dbos_unknown", echo, 3)
    assert status_row(database_url, parked.workflow_id)["queue_name"] == "_dbos_unknown"
    assert DBOS.resume_workflow(parked.workflow_id, queue_name=internal).get_result() == 3

    @DBOS.workflow()
    def nightly(when: Any, context: Any) -> str:
        return f"ran {context}"

    DBOS.create_schedule(
        schedule_name="s", workflow_fn=nightly, schedule="0 0 29 2 *", queue_name=internal, context="c"
    )
    assert DBOS.trigger_schedule("s").get_result() == "ran c"


# --- where ambient options reach


def test_a_step_does_not_see_the_options_around_its_call(app: type[DBOS], database_url: str) -> None:
    """03 R31: a debouncer would refuse them."""
    debouncer = Debouncer.create(declare_echo())
    handle = debouncer.debounce("key", 3600, 1)

    @DBOS.step()
    def bounce() -> str:
        return debouncer.debounce("key", 3600, 2).workflow_id

    @DBOS.workflow()
    def parent() -> str:
        with SetEnqueueOptions(priority=3):
            with pytest.raises(DBOSException, match="priority"):
                debouncer.debounce("key", 3600, 3)
            return bounce()

    assert parent() == handle.workflow_id


def test_a_block_reaches_only_the_task_that_is_in_it(app: type[DBOS], database_url: str) -> None:
    """03 R31."""
    echo = declare_echo()

    async def main() -> list[str]:
        inside = asyncio.Event()
        done = asyncio.Event()

        async def within() -> str:
            with SetEnqueueOptions(priority=5):
                inside.set()
                await done.wait()
                return (await DBOS.enqueue_workflow_async(NOWHERE, echo)).workflow_id

        async def beside() -> str:
            await inside.wait()
            workflow_id = (await DBOS.enqueue_workflow_async(NOWHERE, echo)).workflow_id
            done.set()
            return workflow_id

        return list(await asyncio.gather(within(), beside()))

    assert [status_row(database_url, found)["priority"] for found in asyncio.run(main())] == [5, 0]


@pytest.mark.parametrize("priority", [1, 2**31 - 1])
def test_the_whole_range_of_priorities_is_accepted(app: type[DBOS], database_url: str, priority: int) -> None:
    """03 R33; what lies outside is refused in test_contexts.py."""
    echo = declare_echo()
    with SetEnqueueOptions(priority=priority):
        handle = DBOS.enqueue_workflow(NOWHERE, echo)
    assert status_row(database_url, handle.workflow_id)["priority"] == priority


def test_a_delay_among_the_options_counts_from_the_call(app: type[DBOS], database_url: str) -> None:
    """03 R34: each call anew, where SetEnqueueOptions counts from its construction."""
    declare_echo()
    clock = the_engine().clock
    options: EnqueueOptions = {**BY_NAME, "delay_seconds": 3600}
    for _ in range(2):
        before_ms = clock.now_ms()
        handle = DBOS.enqueue_workflow_with_options(options)
        due_ms = status_row(database_url, handle.workflow_id)["delay_until_epoch_ms"]
        assert before_ms - 1 <= due_ms - 3_600_000 <= clock.now_ms()


def test_one_block_may_be_used_for_several_enqueues_in_turn(app: type[DBOS], database_url: str) -> None:
    """03 R35."""
    echo = declare_echo()
    options = SetEnqueueOptions(priority=4)
    for _ in range(2):
        with options:
            handle = DBOS.enqueue_workflow(NOWHERE, echo)
            with pytest.raises(DBOSException, match="SetEnqueueOptions"), options:
                pass
        assert status_row(database_url, handle.workflow_id)["priority"] == 4
    assert status_row(database_url, DBOS.enqueue_workflow(NOWHERE, echo).workflow_id)["priority"] == 0


def test_options_that_need_a_queue_start_nothing_without_one(app: type[DBOS], database_url: str) -> None:
    """03 R36: all of them are named, and no row is written."""
    echo = declare_echo()
    block = SetEnqueueOptions(deduplication_id="d", priority=2, queue_partition_key="k", delay_seconds=1)
    with block, pytest.raises(DBOSException) as refused:
        DBOS.start_workflow(echo)
    for name in ("deduplication_id", "priority", "queue_partition_key", "delay_seconds"):
        assert name in str(refused.value)
    assert rows(database_url, "SELECT 1 FROM workflow_status") == []


# --- the row


def test_who_enqueues_shows_in_the_row(app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """03 R39: application id, roles, parent, creator; by name no executor, no version and no assumed role."""
    monkeypatch.setenv("DBOS__APPID", "an-application-id")
    echo = declare_echo()

    @DBOS.workflow()
    @DBOS.required_roles(["admin"])
    def parent() -> list[str]:
        assert DBOS.assumed_role == "admin"
        by_function = DBOS.enqueue_workflow(NOWHERE, echo)
        by_name = DBOS.enqueue_workflow_with_options(BY_NAME)
        other: EnqueueOptions = {**BY_NAME, "authenticated_user": "bob", "authenticated_roles": []}
        return [by_function.workflow_id, by_name.workflow_id, DBOS.enqueue_workflow_with_options(other).workflow_id]

    with SetWorkflowID("p"), DBOSContextSetAuth("ann", ["admin"]):
        found = [status_row(database_url, workflow_id) for workflow_id in parent()]
    assert [row["assumed_role"] for row in found] == ["admin", None, None]
    assert [row["authenticated_user"] for row in found] == ["ann", "ann", "bob"]
    # An empty list of roles is none.
    assert [row["authenticated_roles"] is None for row in found] == [False, False, True]
    assert [row["executor_id"] for row in found] == ["test", None, None]
    assert [row["application_version"] for row in found] == ["v1", None, None]
    for row in found:
        assert (row["application_id"], row["parent_workflow_id"]) == ("an-application-id", "p")
        assert (row["application_name"], row["schedule_name"]) == ("test-app", None)
        assert (row["recovery_attempts"], row["owner_xid"], row["started_at_epoch_ms"]) == (0, None, None)
        assert row["created_at"] == row["updated_at"]
    assert len({row["creator_xid"] for row in found}) == 3


@pytest.mark.parametrize("by_name", [False, True])
def test_an_inherited_deadline_is_written_at_once_also_while_delayed(
    app: type[DBOS], database_url: str, by_name: bool
) -> None:
    """03 R39, R58: so it can end a workflow that is still DELAYED; an explicit timeout replaces it."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> list[str]:
        found = []
        for timeout in ({}, {"workflow_timeout": 60.0}):
            if by_name:
                options: Any = {**BY_NAME, "delay_seconds": 3600, **timeout}
                found.append(DBOS.enqueue_workflow_with_options(options).workflow_id)
                continue
            with SetEnqueueOptions(delay_seconds=3600):
                if timeout:
                    with SetWorkflowTimeout(60):
                        found.append(DBOS.enqueue_workflow(NOWHERE, echo).workflow_id)
                else:
                    found.append(DBOS.enqueue_workflow(NOWHERE, echo).workflow_id)
        return found

    with SetWorkflowID("p"), SetWorkflowTimeout(300):
        inherited, own = (status_row(database_url, workflow_id) for workflow_id in parent())
    assert inherited["workflow_deadline_epoch_ms"] == status_row(database_url, "p")["workflow_deadline_epoch_ms"]
    assert (own["workflow_timeout_ms"], own["workflow_deadline_epoch_ms"]) == (60_000, None)
    rows(database_url, "UPDATE workflow_status SET workflow_deadline_epoch_ms = 1 WHERE status = 'DELAYED'")
    the_engine().deadlines.wake()
    assert wait_for_status(database_url, inherited["workflow_uuid"], "CANCELLED") == "CANCELLED"


# --- step ids


@pytest.mark.parametrize(
    "wrong",
    [
        {"priority": 0},
        {"queue_name": ""},
        {"workflow_name": None},
        {"deduplication_id": "d", "queue_partition_key": "p"},
        {"shard_key": "s"},
    ],
    ids=repr,
)
def test_an_enqueue_by_name_that_is_refused_leaves_a_gap_without_a_record(
    app: type[DBOS], config: Config, database_url: str, wrong: Any
) -> None:
    """03 R43: its id is taken before anything is checked."""
    declare_echo()

    @DBOS.workflow()
    def parent() -> str:
        with pytest.raises((DBOSException, KeyError)):
            DBOS.enqueue_workflow_with_options({**BY_NAME, **wrong})
        return DBOS.enqueue_workflow_with_options(BY_NAME).workflow_id

    with SetWorkflowID("p"):
        assert parent() == "p-2"
    assert step_names(database_url, "p") == {2: "echo"}
    assert replay(config, "p") == "p-2"


async def test_gathered_enqueues_by_name_are_numbered_in_argument_order(config: Config, database_url: str) -> None:
    """03 R43."""
    DBOS(config=config)
    declare_echo()

    @DBOS.workflow()
    async def parent() -> list[str]:
        calls = [DBOS.enqueue_workflow_with_options_async(BY_NAME, number) for number in range(10)]
        return [handle.workflow_id for handle in await asyncio.gather(*calls)]

    DBOS.launch()
    with SetWorkflowID("p"):
        assert await parent() == [f"p-{number}" for number in range(1, 11)]
    stored = rows(database_url, "SELECT workflow_uuid FROM workflow_status WHERE parent_workflow_id = 'p'")
    assert len(stored) == 10
    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)


def test_a_replayed_enqueue_by_name_takes_its_record_whatever_its_options_are_now(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """03 R44: it looks before it validates; one by function validates first, on a replay too."""
    echo = declare_echo()
    now: dict[str, Any] = {}

    @DBOS.workflow()
    def by_name() -> list[str]:
        with SetWorkflowID("ambient"):
            first = DBOS.enqueue_workflow_with_options({**BY_NAME, **now}).workflow_id
            # The ambient id was taken by the first one, in the replay too.
            return [first, DBOS.enqueue_workflow_with_options(BY_NAME).workflow_id]

    @DBOS.workflow()
    def by_function() -> str:
        with SetEnqueueOptions(**now):
            return DBOS.enqueue_workflow(NOWHERE, echo).workflow_id

    with SetWorkflowID("n"):
        assert by_name() == ["ambient", "n-2"]
    with SetWorkflowID("f"):
        assert by_function() == "f-1"
    make_pending(database_url, "n")
    make_pending(database_url, "f")
    now.update(deduplication_id="d", queue_partition_key="p")
    relaunch(config)
    assert DBOS.retrieve_workflow("n").get_result() == ["ambient", "n-2"]
    with pytest.raises(DBOSException, match="deduplication id"):
        DBOS.retrieve_workflow("f").get_result()


# --- the holder of a deduplication id


@pytest.mark.parametrize("times", [1, 2])
def test_a_holder_that_lets_go_in_between_makes_room_for_the_new_workflow(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """03 R53: the insert is tried again until one of the two succeeds."""
    echo = declare_echo()
    holders = [DBOS.enqueue_workflow(NOWHERE, echo).workflow_id for _ in range(times)]
    give = "UPDATE workflow_status SET deduplication_id = %s WHERE workflow_uuid = %s"
    rows(database_url, give, "d", holders[0])
    store = the_engine().store
    find, asked = store.find_holder, []

    def let_go(queue_name: str, deduplication_id: str) -> str | None:
        # Between the insert, which met the holder, and the look: it lets go, and perhaps the next one has taken the id.
        if holders:
            asked.append(holders.pop(0))
            rows(database_url, give, None, asked[-1])
            found = find(queue_name, deduplication_id)
            if holders:
                rows(database_url, give, "d", holders[0])
            return found
        return find(queue_name, deduplication_id)

    monkeypatch.setattr(store, "find_holder", let_go)
    with SetEnqueueOptions(deduplication_id="d", duplication_policy="return-existing"):
        handle = DBOS.enqueue_workflow(NOWHERE, echo)
    assert len(asked) == times
    assert handle.workflow_id not in asked
    row = status_row(database_url, handle.workflow_id)
    assert (row["status"], row["deduplication_id"]) == ("ENQUEUED", "d")


def test_a_deduplication_id_is_held_over_all_applications_and_versions(app: type[DBOS]) -> None:
    """03 R51."""
    echo = declare_echo()
    DBOS.enqueue_workflow_with_options(
        {**BY_NAME, "application_name": "other-app", "app_version": "v9", "deduplication_id": "d"}
    )
    with SetEnqueueOptions(deduplication_id="d"), pytest.raises(DBOSQueueDeduplicatedError):
        DBOS.enqueue_workflow(NOWHERE, echo)


def test_rewinding_gives_the_deduplication_id_back_and_forks_get_none(app: type[DBOS], database_url: str) -> None:
    """03 R52."""
    echo = declare_echo()
    with SetEnqueueOptions(deduplication_id="d"):
        handle = DBOS.enqueue_workflow(NOWHERE, echo)
    fork = DBOS.fork_workflow(handle.workflow_id, 1, queue_name=NOWHERE)
    assert status_row(database_url, fork.workflow_id)["deduplication_id"] is None
    # As another release leaves it: ended, and still with the id.
    rows(database_url, "UPDATE workflow_status SET status = 'ERROR' WHERE workflow_uuid = %s", handle.workflow_id)
    DBOS.rewind_workflow(handle.workflow_id, queue_name=NOWHERE)
    row = status_row(database_url, handle.workflow_id)
    assert (row["status"], row["deduplication_id"]) == ("ENQUEUED", None)


def test_async_and_configured_workflows_are_enqueued_from_sync_code(app: type[DBOS]) -> None:
    """03 R28."""

    @DBOS.workflow()
    async def doubled(value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    @DBOS.step()
    async def tripled(value: int) -> int:
        return value * 3

    DBOS.register_queue("mail")
    assert DBOS.enqueue_workflow("mail", doubled, 2).get_result() == 4
    assert DBOS.enqueue_workflow("mail", tripled, 2).get_result() == 6


@pytest.mark.parametrize(
    ("other", "accepted"),
    [
        ({}, True),
        ({"queue_name": "elsewhere", "priority": 3, "app_version": "v9"}, True),
        ({"workflow_name": "other"}, False),
        ({"class_name": "Other"}, False),
        ({"class_name": None}, False),
        ({"instance_name": "south"}, False),
        ({"instance_name": None}, False),
    ],
    ids=repr,
)
def test_an_id_in_use_belongs_to_a_name_a_class_and_an_instance(
    app: type[DBOS], database_url: str, other: Any, accepted: bool
) -> None:
    """03 R47, R48: what differs otherwise is dropped, and nothing is changed."""
    first: EnqueueOptions = {**BY_NAME, "workflow_id": "w", "class_name": "Shop", "instance_name": "north"}
    DBOS.enqueue_workflow_with_options(first, 1)
    before = rows(database_url, "SELECT * FROM workflow_status, workflow_input")
    if accepted:
        assert DBOS.enqueue_workflow_with_options({**first, **other}, 2).workflow_id == "w"
    else:
        with pytest.raises(DBOSConflictingWorkflowError, match="w"):
            DBOS.enqueue_workflow_with_options({**first, **other}, 2)
    assert rows(database_url, "SELECT * FROM workflow_status, workflow_input") == before
