"""What makes a configuration of a queue, and what a setter checks it against (03 sections 3.1 and 3.4)."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from tests.helpers import rows, step_names
from tests.schedules.recording import the_engine

Config = dict[str, Any]


def is_partitioned(database_url: str) -> bool:
    (row,) = rows(database_url, "SELECT partition_queue FROM queues WHERE name = 'mail'")
    return bool(row["partition_queue"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("partition_concurrency", 1),
        ("partition_worker_concurrency", 1),
        ("partition_limiter", {"limit": 1, "period": 1.0}),
    ],
)
def test_each_limit_per_partition_makes_a_partitioned_queue_and_nothing_else_does(
    app: type[DBOS], database_url: str, name: str, value: Any
) -> None:
    """03 R6, section 2.1: registered or set; the column for other releases follows."""
    others: Any = {"global_concurrency": 9, "worker_concurrency": 5, "limiter": {"limit": 1, "period": 1.0}}
    queue = DBOS.register_queue("mail", **others)
    assert not is_partitioned(database_url)
    getattr(queue, f"set_{name}")(value)
    assert is_partitioned(database_url)
    getattr(queue, f"set_{name}")(None)
    assert not is_partitioned(database_url)
    DBOS.register_queue("mail", **{name: value})
    assert is_partitioned(database_url)
    DBOS.register_queue("mail", **others)
    assert not is_partitioned(database_url)


@pytest.mark.parametrize(
    ("wrong", "first"),
    [
        ({"partition_worker_concurrency": 0, "partition_limiter": {}}, "partition_worker_concurrency"),
        ({"partition_limiter": {}, "partition_worker_concurrency": 3, "partition_concurrency": 2}, "partition_limiter"),
        ({"polling_interval_sec": 0, "limiter": {}}, "polling_interval_sec"),
        ({"partition_limiter": {}, "limiter": {}, "polling_interval_sec": 0}, "partition_limiter"),
    ],
)
def test_limiters_are_checked_in_their_place(app: type[DBOS], wrong: Any, first: str) -> None:
    """03 R4: the order of the others is in test_registering.py."""
    with pytest.raises(ValueError, match=rf"(The|'mail':) {first} "):
        DBOS.register_queue("mail", **wrong)
    assert DBOS.list_queues() == []


def test_limits_are_checked_before_the_database_is_asked(app: type[DBOS], monkeypatch: pytest.MonkeyPatch) -> None:
    """03 R4."""
    store = the_engine().store

    def asked(*given: Any, **options: Any) -> Any:
        raise AssertionError("the database was asked")

    monkeypatch.setattr(store, "register_queue", asked)
    monkeypatch.setattr(store, "list_versions", asked)
    with pytest.raises(ValueError, match="partition_concurrency"):
        DBOS.register_queue("mail", partition_concurrency=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("polling_interval_sec", None),
        ("polling_interval_sec", float("nan")),
        ("polling_interval_sec", float("inf")),
        ("polling_interval_sec", "1"),
        ("polling_interval_sec", True),
        ("global_concurrency", 2**31),
        ("worker_concurrency", 1.5),
        ("partition_concurrency", True),
        ("limiter", 5),
        ("limiter", {"limit": "1", "period": 1.0}),
        ("limiter", {"limit": 2**31, "period": 1.0}),
        ("limiter", {"limit": 1, "period": float("nan")}),
        ("partition_limiter", {"limit": 1, "period": 1e300}),
    ],
    ids=repr,
)
def test_what_is_no_number_or_too_large_is_refused_with_its_name(
    app: type[DBOS], database_url: str, name: str, value: Any
) -> None:
    """A ValueError of the call; in the row it would stop the loop that serves all queues."""
    with pytest.raises(ValueError, match=name):
        DBOS.register_queue("mail", **{name: value})
    queue = DBOS.register_queue("mail")
    before = rows(database_url, "SELECT * FROM queues")
    with pytest.raises(ValueError, match=name):
        getattr(queue, f"set_{name}")(value) if value is not None else queue.set_polling_interval_sec(value)
    assert rows(database_url, "SELECT * FROM queues") == before


@pytest.mark.parametrize("interval", ["no number", "-1", "0", "1e-9"])
def test_an_interval_that_another_program_has_written_stops_nothing(
    app: type[DBOS], database_url: str, interval: str
) -> None:
    @DBOS.workflow()
    def work() -> str:
        return "done"

    if interval == "no number":
        interval = "9e999" if database_url.startswith("sqlite") else "'NaN'"
    DBOS.register_queue("mail")
    rows(database_url, f"UPDATE queues SET updated_at = updated_at + 1, polling_interval_sec = {interval}")
    the_engine().dispatcher.read_configuration_now()
    DBOS.register_queue("print")
    for name in ("mail", "print"):
        assert DBOS.enqueue_workflow(name, work).get_result() == "done"


def test_calls_about_queues_take_no_step_id(app: type[DBOS], database_url: str) -> None:
    """03 R12."""

    @DBOS.workflow()
    def work() -> str:
        queue = DBOS.register_queue("mail", worker_concurrency=1)
        queue.set_worker_concurrency(2)
        assert queue.worker_concurrency == 2
        assert [found.name for found in DBOS.list_queues()] == ["mail"]
        assert DBOS.retrieve_queue("mail") is not None
        DBOS.delete_queue("mail")
        return DBOS.run_step({"name": "after"}, lambda: "done")

    with SetWorkflowID("w"):
        assert work() == "done"
    assert step_names(database_url, "w") == {1: "after"}


def test_reading_one_property_refreshes_them_all(app: type[DBOS], database_url: str) -> None:
    """03 R19: the owner too, which is no property but an attribute."""
    queue = DBOS.register_queue("mail", worker_concurrency=2)
    rows(database_url, "UPDATE queues SET worker_concurrency = 5, application_name = 'other-app'")
    assert queue.application_name == "test-app"
    assert queue.polling_interval_sec == 1.0
    assert queue.application_name == "other-app"
    assert queue.worker_concurrency == 5


@pytest.mark.parametrize(
    ("registered", "setter", "value"),
    [
        ({"partition_concurrency": 3}, "global_concurrency", 2),
        ({"partition_worker_concurrency": 3}, "global_concurrency", 2),
        ({"partition_worker_concurrency": 3}, "concurrency", 2),
        ({"worker_concurrency": 3}, "global_concurrency", 2),
        ({"global_concurrency": 3}, "worker_concurrency", 4),
        ({"partition_worker_concurrency": 3}, "worker_concurrency", 2),
        ({"global_concurrency": 3}, "partition_concurrency", 4),
        ({"partition_worker_concurrency": 3}, "partition_concurrency", 2),
        ({"partition_concurrency": 3}, "partition_worker_concurrency", 4),
        ({"worker_concurrency": 3}, "partition_worker_concurrency", 4),
        ({"global_concurrency": 3}, "partition_worker_concurrency", 4),
        ({}, "polling_interval_sec", None),
        ({}, "limiter", {"limit": None, "period": 1.0}),
    ],
    ids=repr,
)
def test_a_setter_checks_each_limit_it_must_agree_with(
    app: type[DBOS], database_url: str, registered: Any, setter: str, value: Any
) -> None:
    """03 R20: against the row as it is now, not as the object knows it."""
    queue = DBOS.register_queue("mail")
    DBOS.register_queue("mail", **registered)
    before = rows(database_url, "SELECT * FROM queues")
    with pytest.raises(ValueError, match=r"mail|lacks|polling_interval_sec"):
        getattr(queue, f"set_{setter}")(value)
    assert rows(database_url, "SELECT * FROM queues") == before


def test_zero_pauses_by_a_setter_too(app: type[DBOS]) -> None:
    """03 R5, R20: it is above nothing, so it has to agree with nothing but limits per partition."""
    queue = DBOS.register_queue("mail", global_concurrency=8)
    queue.set_worker_concurrency(0)
    queue.set_global_concurrency(0)
    assert (queue.worker_concurrency, queue.global_concurrency) == (0, 0)
