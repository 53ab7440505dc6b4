"""Registering, reading and changing queues (03 section 3)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from dbos import DBOS, Queue
from dbos.error import DBOSException, DBOSInitializationError
from tests.helpers import rows, wait_until

Config = dict[str, Any]

LIMITS = (
    "global_concurrency",
    "worker_concurrency",
    "limiter",
    "partition_concurrency",
    "partition_worker_concurrency",
    "partition_limiter",
)


def queue_row(database_url: str, name: str) -> dict[str, Any]:
    (row,) = rows(database_url, "SELECT * FROM queues WHERE name = %s", name)
    return row


def test_a_registered_queue_has_the_limits_that_were_given(app: type[DBOS], database_url: str) -> None:
    """03 section 2.1, R6, R18."""
    queue = DBOS.register_queue(
        "everything",
        global_concurrency=8,
        worker_concurrency=4,
        partition_concurrency=3,
        partition_worker_concurrency=2,
        limiter={"limit": 10, "period": 1.5},
        partition_limiter={"limit": 5, "period": 2},
        polling_interval_sec=0.5,
    )
    assert (queue.name, queue.application_name, queue.database_backed_queue) == ("everything", "test-app", True)
    assert (queue.global_concurrency, queue.concurrency, queue.worker_concurrency) == (8, 8, 4)
    assert (queue.partition_concurrency, queue.partition_worker_concurrency) == (3, 2)
    assert (queue.limiter, queue.partition_limiter) == ({"limit": 10, "period": 1.5}, {"limit": 5, "period": 2.0})
    assert queue.polling_interval_sec == 0.5
    row = queue_row(database_url, "everything")
    assert (row["concurrency"], row["rate_limit_max"], row["rate_limit_period_sec"]) == (8, 10, 1.5)
    assert (bool(row["priority_enabled"]), bool(row["partition_queue"])) == (True, True)
    assert row["queue_id"]


def test_a_queue_without_limits_has_none(app: type[DBOS], database_url: str) -> None:
    queue = DBOS.register_queue("plain")
    assert [getattr(queue, name) for name in LIMITS] == [None] * len(LIMITS)
    assert queue.polling_interval_sec == 1.0
    assert not queue_row(database_url, "plain")["partition_queue"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"concurrency": 1, "global_concurrency": 1}, "former name"),
        ({"partition_concurrency": 0}, "partition_concurrency must be at least 1, not 0"),
        ({"partition_worker_concurrency": 0}, "partition_worker_concurrency must be at least 1, not 0"),
        ({"partition_limiter": {"limit": 1}}, "lacks 'period'"),
        ({"partition_limiter": {"period": 1.0, "limit": None}}, "lacks 'limit'"),
        ({"partition_worker_concurrency": 3, "partition_concurrency": 2}, "must not be above partition_concurrency"),
        ({"partition_worker_concurrency": 3, "worker_concurrency": 2}, "must not be above worker_concurrency"),
        ({"worker_concurrency": 3, "global_concurrency": 2}, r"worker_concurrency \(3\) must not be above global"),
        ({"partition_concurrency": 3, "global_concurrency": 2}, "partition_concurrency .3. must not be above global"),
        ({"partition_worker_concurrency": 3, "global_concurrency": 2}, "must not be above global_concurrency"),
        ({"polling_interval_sec": 0}, "polling_interval_sec must be above 0"),
        ({"limiter": {"limit": 1}}, "lacks 'period'"),
        ({"worker_concurrency": "3"}, "worker_concurrency must be a whole number, not '3'"),
    ],
)
def test_limits_that_contradict_each_other_are_refused(
    app: type[DBOS], database_url: str, options: dict[str, Any], complaint: str
) -> None:
    """03 R4."""
    with pytest.raises(ValueError, match=complaint):
        DBOS.register_queue("bad", **options)
    assert rows(database_url, "SELECT name FROM queues") == []


def test_reserved_names_are_refused(app: type[DBOS]) -> None:
    """03 R1."""
    with pytest.raises(ValueError, match="reserved"):
        DBOS.register_queue("_dbos_mine")
    assert DBOS.retrieve_queue("_dbos_internal_queue") is None
    DBOS.delete_queue("_dbos_internal_queue")


def test_zero_is_a_limit_that_pauses(app: type[DBOS]) -> None:
    """03 R5."""
    assert DBOS.register_queue("paused", worker_concurrency=0, global_concurrency=0).global_concurrency == 0


def test_registering_again_replaces_all_limits_and_keeps_the_identity(app: type[DBOS], database_url: str) -> None:
    """03 R7, R8: what is left out is reset."""
    DBOS.register_queue("mail", worker_concurrency=2, limiter={"limit": 1, "period": 1})
    before = queue_row(database_url, "mail")
    again = DBOS.register_queue("mail", global_concurrency=5, on_conflict="always_update")
    assert (again.worker_concurrency, again.limiter, again.global_concurrency) == (None, None, 5)
    after = queue_row(database_url, "mail")
    assert [after[key] for key in ("queue_id", "created_at")] == [before[key] for key in ("queue_id", "created_at")]
    assert after["updated_at"] > before["updated_at"]


def test_never_update_leaves_the_queue_as_it_is(app: type[DBOS], database_url: str) -> None:
    """03 R7."""
    DBOS.register_queue("mail", worker_concurrency=2)
    rows(database_url, "UPDATE queues SET application_name = NULL")
    assert DBOS.register_queue("mail", worker_concurrency=3, on_conflict="never_update").worker_concurrency == 2
    assert queue_row(database_url, "mail")["application_name"] is None


def test_an_older_version_does_not_replace_the_limits_of_the_latest(app: type[DBOS], config: Config) -> None:
    """03 R7, R9: update_if_latest_version, which an unknown word means too."""
    DBOS.register_queue("mail", worker_concurrency=2)
    DBOS.destroy()
    DBOS(config=config | {"application_version": "v2"})
    DBOS.launch()
    DBOS.register_queue("mail", worker_concurrency=3)
    DBOS.destroy()
    DBOS(config=config)
    DBOS.launch()
    assert DBOS.register_queue("mail", worker_concurrency=4).worker_concurrency == 3
    assert DBOS.register_queue("mail", worker_concurrency=4, on_conflict="other").worker_concurrency == 3  # type: ignore[arg-type]
    assert DBOS.register_queue("mail", worker_concurrency=4, on_conflict="always_update").worker_concurrency == 4


@pytest.mark.parametrize("on_conflict", ["update_if_latest_version", "always_update", "never_update"])
def test_a_queue_of_another_application_is_refused_and_left_alone(
    app: type[DBOS], database_url: str, on_conflict: Any
) -> None:
    """03 R10."""
    DBOS.register_queue("mail", worker_concurrency=2)
    rows(database_url, "UPDATE queues SET application_name = 'other-app'")
    with pytest.raises(DBOSException, match=r"'mail' belongs to application 'other-app', so application 'test-app'"):
        DBOS.register_queue("mail", worker_concurrency=3, on_conflict=on_conflict)
    assert queue_row(database_url, "mail")["worker_concurrency"] == 2
    found = DBOS.retrieve_queue("mail")
    assert found is not None
    assert found.application_name == "other-app"


def test_a_queue_that_nobody_owns_is_claimed(app: type[DBOS], database_url: str) -> None:
    """03 R8."""
    DBOS.register_queue("mail")
    rows(database_url, "UPDATE queues SET application_name = NULL")
    assert DBOS.register_queue("mail", worker_concurrency=3).application_name == "test-app"
    assert queue_row(database_url, "mail")["application_name"] == "test-app"


def test_registering_at_the_same_time_succeeds_everywhere(app: type[DBOS], database_url: str) -> None:
    """03 R11."""
    failures: list[BaseException] = []

    def register(number: int) -> None:
        try:
            DBOS.register_queue("mail", worker_concurrency=number + 1)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=register, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert queue_row(database_url, "mail")["worker_concurrency"] in range(1, 9)


def test_registering_in_a_workflow_is_not_recorded(app: type[DBOS], database_url: str) -> None:
    """03 R12."""

    @DBOS.workflow()
    def work() -> list[str]:
        DBOS.register_queue("mail")
        found = [queue.name for queue in DBOS.list_queues()]
        DBOS.delete_queue("mail")
        return found

    assert work() == ["mail"]
    assert rows(database_url, "SELECT * FROM operation_outputs") == []


def test_retrieving_listing_and_deleting(app: type[DBOS], database_url: str) -> None:
    """03 R14, R15, R16."""
    for name in ("one", "two", "three", "four"):
        DBOS.register_queue(name)
    rows(database_url, "UPDATE queues SET application_name = NULL WHERE name = 'two'")
    rows(database_url, "UPDATE queues SET application_name = 'second' WHERE name = 'three'")
    rows(database_url, "UPDATE queues SET application_name = 'third' WHERE name = 'four'")

    def names(**options: Any) -> list[str]:
        return [queue.name for queue in DBOS.list_queues(**options)]

    assert names() == ["one", "two"]
    assert names(application_name="second") == ["three", "two"]
    assert names(application_name=["second", "third"]) == ["four", "three", "two"]
    assert names(application_name="") == names(application_name=[]) == ["four", "one", "three", "two"]
    assert DBOS.retrieve_queue("missing") is None
    DBOS.delete_queue("one")
    DBOS.delete_queue("one")
    assert DBOS.retrieve_queue("one") is None


def test_a_queue_is_not_made_by_calling_its_class() -> None:
    """03 R17."""
    with pytest.raises(DBOSException, match="register_queue"):
        Queue("mail", 3)


def test_setters_change_the_row_and_every_object_sees_it(app: type[DBOS]) -> None:
    """03 R18, R19, R20."""
    queue, other = DBOS.register_queue("mail"), DBOS.retrieve_queue("mail")
    assert other is not None
    queue.set_global_concurrency(9)
    queue.set_worker_concurrency(5)
    queue.set_partition_concurrency(4)
    queue.set_partition_worker_concurrency(3)
    queue.set_limiter({"limit": 7, "period": 2})
    queue.set_partition_limiter({"limit": 6, "period": 3})
    queue.set_polling_interval_sec(0.25)
    assert [getattr(other, name) for name in LIMITS] == [
        9,
        5,
        {"limit": 7, "period": 2.0},
        4,
        3,
        {"limit": 6, "period": 3.0},
    ]
    assert other.polling_interval_sec == 0.25
    for name in LIMITS:
        getattr(queue, f"set_{name}")(None)
    assert [getattr(other, name) for name in LIMITS] == [None] * len(LIMITS)
    queue.set_concurrency(2)
    assert other.global_concurrency == 2


@pytest.mark.parametrize(
    ("setter", "value"),
    [
        ("set_global_concurrency", 3),
        ("set_concurrency", 3),
        ("set_worker_concurrency", 9),
        ("set_worker_concurrency", 1),
        ("set_partition_concurrency", 0),
        ("set_partition_concurrency", 9),
        ("set_partition_concurrency", 1),
        ("set_partition_worker_concurrency", 0),
        ("set_partition_worker_concurrency", 4),
        ("set_partition_limiter", {"limit": 1}),
        ("set_limiter", {"period": 1.0}),
        ("set_polling_interval_sec", 0),
    ],
)
def test_setters_refuse_what_contradicts_another_limit(app: type[DBOS], setter: str, value: Any) -> None:
    """03 R20."""
    queue = DBOS.register_queue(
        "mail",
        global_concurrency=8,
        worker_concurrency=4,
        partition_concurrency=3,
        partition_worker_concurrency=2,
    )
    with pytest.raises(ValueError, match=r"mail|lacks"):
        getattr(queue, setter)(value)
    assert (queue.global_concurrency, queue.worker_concurrency, queue.partition_concurrency) == (8, 4, 3)


def test_a_deleted_queue_cannot_be_read_or_changed(app: type[DBOS]) -> None:
    """03 R19, R21."""
    queue = DBOS.register_queue("mail")
    DBOS.delete_queue("mail")
    with pytest.raises(DBOSException, match="does not exist any more"):
        _ = queue.worker_concurrency
    with pytest.raises(DBOSException, match="does not exist any more"):
        queue.set_worker_concurrency(3)
    queue.set_limiter({"limit": 1, "period": 1.0})
    queue.set_polling_interval_sec(2.0)
    assert DBOS.retrieve_queue("mail") is None


def test_concurrent_setters_never_make_a_contradiction(app: type[DBOS]) -> None:
    """03 R22 says they may; here a change is made to the row that was checked, or tried again."""
    queue = DBOS.register_queue("mail", global_concurrency=10, worker_concurrency=1)

    def change(setter: str, values: list[int]) -> None:
        for value in values:
            try:
                getattr(queue, setter)(value)
            except ValueError:
                continue

    threads = [
        threading.Thread(target=change, args=("set_global_concurrency", [2, 10] * 10)),
        threading.Thread(target=change, args=("set_worker_concurrency", [9, 1] * 10)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total, worker = queue.global_concurrency, queue.worker_concurrency
    assert total is not None
    assert worker is not None
    assert worker <= total


async def test_async_forms(config: Config) -> None:
    """03 section 3.3, R18."""
    DBOS(config=config)
    DBOS.launch()
    queue = await DBOS.register_queue_async("mail", worker_concurrency=3)
    assert await queue.get_worker_concurrency_async() == 3
    await queue.set_worker_concurrency_async(4)
    await queue.set_global_concurrency_async(8)
    await queue.set_concurrency_async(9)
    await queue.set_partition_concurrency_async(4)
    await queue.set_partition_worker_concurrency_async(2)
    await queue.set_limiter_async({"limit": 1, "period": 2.0})
    await queue.set_partition_limiter_async({"limit": 2, "period": 3.0})
    await queue.set_polling_interval_sec_async(0.5)
    assert await queue.get_concurrency_async() == await queue.get_global_concurrency_async() == 9
    assert await queue.get_partition_concurrency_async() == 4
    assert await queue.get_partition_worker_concurrency_async() == 2
    assert await queue.get_limiter_async() == {"limit": 1, "period": 2.0}
    assert await queue.get_partition_limiter_async() == {"limit": 2, "period": 3.0}
    assert await queue.get_polling_interval_sec_async() == 0.5
    found = await DBOS.retrieve_queue_async("mail")
    assert found is not None
    assert [listed.name for listed in await DBOS.list_queues_async()] == ["mail"]
    await DBOS.delete_queue_async("mail")
    assert await DBOS.retrieve_queue_async("mail") is None
    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)


async def test_sync_forms_refuse_to_block_an_event_loop(config: Config) -> None:
    """03 section 3.3."""
    DBOS(config=config)
    DBOS.launch()
    for name, arguments in (
        ("register_queue", ("mail",)),
        ("retrieve_queue", ("mail",)),
        ("list_queues", ()),
        ("delete_queue", ("mail",)),
    ):
        with pytest.raises(RuntimeError, match=f"{name}_async"):
            getattr(DBOS, name)(*arguments)
    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)


@pytest.mark.parametrize("launched_before", [False, True])
def test_queues_need_a_launched_application(config: Config, launched_before: bool) -> None:
    """03 section 3.3."""
    if launched_before:
        DBOS(config=config)
        DBOS.launch()
        DBOS.destroy()
    for call in (lambda: DBOS.register_queue("mail"), lambda: DBOS.retrieve_queue("mail"), DBOS.list_queues):
        with pytest.raises(DBOSException):
            call()


def test_listen_queues_is_called_once_between_construction_and_launch(config: Config) -> None:
    """03 R25."""
    with pytest.raises(DBOSException, match="No DBOS"):
        DBOS.listen_queues(["mail"])
    DBOS(config=config)
    with pytest.raises(DBOSException, match="sequence of queue names"):
        DBOS.listen_queues("mail")
    DBOS.listen_queues(["mail"])
    with pytest.raises(DBOSException, match="called already"):
        DBOS.listen_queues(["mail"])
    DBOS.launch()
    with pytest.raises(DBOSException, match="must be called before"):
        DBOS.listen_queues(["mail"])
    DBOS.destroy(destroy_registry=True)


@pytest.mark.parametrize(("names", "served"), [(["mail"], {"mail"}), ([], set()), (None, {"mail", "print"})])
def test_listen_queues_restricts_what_this_process_runs(
    config: Config, names: list[str] | None, served: set[str]
) -> None:
    """03 R25, R26: also for queues that are registered later."""
    DBOS(config=config)
    if names is not None:
        DBOS.listen_queues(names)

    @DBOS.workflow()
    def work(queue_name: str) -> str:
        return queue_name

    DBOS.launch()
    for name in ("mail", "print"):
        DBOS.register_queue(name)
    handles = {name: DBOS.enqueue_workflow(name, work, name) for name in ("mail", "print")}
    for name in served:
        assert handles[name].get_result() == name
    DBOS.resume_workflow(handles["print"].workflow_id)
    assert handles["print"].get_result() == "print"  # the internal queue is always served
    if "mail" not in served:
        assert handles["mail"].get_status().status == "ENQUEUED"
    DBOS.destroy(destroy_registry=True)


def test_a_queue_deleted_and_registered_again_goes_on(app: type[DBOS]) -> None:
    """03 R16, R64: waiting workflows stay."""

    @DBOS.workflow()
    def work(value: int) -> int:
        return value

    DBOS.register_queue("mail", global_concurrency=0)
    handle = DBOS.enqueue_workflow("mail", work, 4)
    DBOS.delete_queue("mail")
    wait_until(lambda: not DBOS.list_queues())
    assert handle.get_status().status == "ENQUEUED"
    DBOS.register_queue("mail")
    assert handle.get_result() == 4


def test_a_change_of_a_limit_takes_effect_without_a_restart(app: type[DBOS]) -> None:
    """03 R23."""

    @DBOS.workflow()
    def work() -> str:
        return "done"

    queue = DBOS.register_queue("mail", worker_concurrency=0)
    handle = DBOS.enqueue_workflow("mail", work)
    queue.set_worker_concurrency(1)
    assert handle.get_result() == "done"


def test_configuration_errors_are_no_value_errors(config: Config) -> None:
    with pytest.raises(DBOSInitializationError):
        DBOS(config=config | {"name": "x"})


@pytest.mark.parametrize("options", [{}, {"worker_concurrency": -1}, {"limiter": {"limit": 0, "period": 0}}])
def test_what_is_not_checked(app: type[DBOS], options: dict[str, Any]) -> None:
    """03 R5."""
    DBOS.register_queue("", **options)
    assert [queue.name for queue in DBOS.list_queues()] == [""]


def test_the_first_mistake_is_the_one_that_is_told(app: type[DBOS]) -> None:
    """03 R4: in this order."""
    wrong: Config = {
        "concurrency": 1,
        "global_concurrency": 1,
        "partition_concurrency": 0,
        "partition_worker_concurrency": 9,
        "worker_concurrency": 5,
        "polling_interval_sec": 0,
    }
    told = []
    for name, mended in (
        ("_dbos_x", {}),
        ("x", {}),
        ("x", {"concurrency": None}),
        ("x", {"partition_concurrency": 6}),
        ("x", {"partition_worker_concurrency": 6}),
        ("x", {"partition_worker_concurrency": 5}),
        ("x", {"worker_concurrency": None}),
        ("x", {"partition_concurrency": None}),
        ("x", {"partition_worker_concurrency": None}),
    ):
        wrong |= mended
        with pytest.raises(ValueError, match=r"Queue|former") as caught:
            DBOS.register_queue(name, **wrong)
        told.append(str(caught.value).partition(": ")[2] or str(caught.value))
    assert told == [
        "Queue names that start with '_dbos_' are reserved; '_dbos_x' is one",
        "concurrency (1) is the former name of global_concurrency (1); give one of the two",
        "partition_concurrency must be at least 1, not 0",
        "partition_worker_concurrency (9) must not be above partition_concurrency (6)",
        "partition_worker_concurrency (6) must not be above worker_concurrency (5)",
        "worker_concurrency (5) must not be above global_concurrency (1)",
        "partition_concurrency (6) must not be above global_concurrency (1)",
        "partition_worker_concurrency (5) must not be above global_concurrency (1)",
        "polling_interval_sec must be above 0, not 0",
    ]


def test_a_first_registration_is_logged_with_its_limits(
    config: Config, dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    """03 R13: and whether this process listens to the queue."""
    DBOS(config=config | {"log_level": "INFO"})
    DBOS.listen_queues(["mail"])
    DBOS.launch()
    for _ in range(2):
        DBOS.register_queue("mail", worker_concurrency=7)
        DBOS.register_queue("print")
    mail, other = [message for message in caplog.messages if message.startswith("Registered")]
    assert "'mail'" in mail
    assert "worker_concurrency=7" in mail
    assert mail.endswith("this process listens to it")
    assert other.endswith("this process does not listen to it")
    DBOS.destroy(destroy_registry=True)


async def test_a_queue_read_or_changed_on_an_event_loop_warns(
    app: type[DBOS], dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    """03 R19: and works."""
    queue = await DBOS.register_queue_async("mail", worker_concurrency=2)
    await queue.set_worker_concurrency_async(3)
    assert await queue.get_worker_concurrency_async() == 3
    assert caplog.messages == []
    queue.set_worker_concurrency(4)
    assert queue.worker_concurrency == 4
    assert ["changed" in message or "read" in message for message in caplog.messages] == [True, True]
