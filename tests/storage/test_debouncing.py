"""The store contract of debouncing: who holds a key, and bounces (03 R148, R152, R158)."""

from __future__ import annotations

import dataclasses
import threading
from typing import Any

import psycopg
import pytest

from dbos.records import Bounce, QueuePlace, Verdict
from dbos.storage.database import SqlStore
from dbos.storage.store import StoreRefused
from dbos.types import KeyHolder, QueueConfig
from tests.helpers import rows, wait_until
from tests.storage.conftest import OpenAnother
from tests.storage.making import Rows, everything, start, step

QUEUE, KEY = "mail", "checkout-key"


def delay(store: SqlStore, workflow_id: str, **given: Any) -> None:
    """A debounced workflow of the name "checkout" that holds the key."""
    place: dict[str, Any] = {"deduplication_id": KEY, "delay_until_ms": 5_000, "is_debounced": True}
    record: dict[str, Any] = {"status": "DELAYED", "owner_token": None}
    for name, value in given.items():
        (place if name in QueuePlace.__slots__ else record)[name] = value
    store.commit([start(workflow_id, queue=QueuePlace(QUEUE, **place), **record)])


def bounce(workflow_id: str = "w", **given: Any) -> Bounce:
    fields: dict[str, Any] = {
        "name": "checkout",
        "queue_name": QUEUE,
        "deduplication_id": KEY,
        "application_name": "test-app",
        "delay_until_ms": 9_000,
        "inputs": "new inputs",
        "serialization": "portable_json",
    }
    return Bounce(workflow_id, **(fields | given))


def stored(read: Rows, workflow_id: str = "w") -> tuple[Any, ...]:
    (row,) = read(
        "SELECT w.delay_until_epoch_ms AS due, w.serialization, w.application_name, w.updated_at, i.inputs "
        "FROM workflow_status AS w JOIN workflow_input AS i ON i.workflow_uuid = w.workflow_uuid "
        "WHERE w.workflow_uuid = %s",
        workflow_id,
    )
    return tuple(row.values())


def test_a_debounced_enqueue_stores_its_mark_and_its_deadline(store: SqlStore, read: Rows) -> None:
    delay(store, "w", debounce_deadline_ms=7_000)
    store.commit([start("plain"), start("queued", queue=QueuePlace(QUEUE))])
    found = read("SELECT workflow_uuid, is_debounced, debounce_deadline_epoch_ms AS deadline FROM workflow_status")
    assert {(row["workflow_uuid"], bool(row["is_debounced"]), row["deadline"]) for row in found} == {
        ("w", True, 7_000),
        ("plain", False, None),
        ("queued", False, None),
    }


def test_the_holder_of_a_key_and_whether_the_queue_is_registered(store: SqlStore) -> None:
    assert store.find_key_holder(QUEUE, KEY) == (False, None)
    store.register_queue(QueueConfig(QUEUE), 1, overwrite=True)
    assert store.find_key_holder(QUEUE, KEY) == (True, None)
    delay(store, "w")
    delay(store, "other", deduplication_id="checkout-other", is_debounced=False, application_name=None)
    assert store.find_key_holder(QUEUE, KEY) == (True, KeyHolder("w", "checkout", "DELAYED", True, "test-app"))
    assert store.find_key_holder(QUEUE, "checkout-other") == (
        True,
        KeyHolder("other", "checkout", "DELAYED", False, None),
    )
    assert store.find_key_holder("elsewhere", KEY) == (False, None)


def test_a_bounce_replaces_inputs_and_format_and_moves_the_start(store: SqlStore, read: Rows) -> None:
    delay(store, "w")
    assert store.bounce(bounce(), 77) is Verdict.APPLIED
    assert stored(read) == (9_000, "portable_json", "test-app", 77, "new inputs")
    assert store.bounce(bounce(delay_until_ms=10), 78) is Verdict.APPLIED
    assert stored(read)[0] == 10


def test_a_bounce_goes_to_the_debounce_deadline_at_most(store: SqlStore, read: Rows) -> None:
    delay(store, "w", debounce_deadline_ms=7_000)
    assert store.bounce(bounce(), 77) is Verdict.APPLIED
    assert stored(read)[0] == 7_000
    assert store.bounce(bounce(delay_until_ms=6_000), 77) is Verdict.APPLIED
    assert stored(read)[0] == 6_000


def test_a_bounce_writes_inputs_that_stand_in_the_status_row(store: SqlStore, read: Rows) -> None:
    """Rows from before version 109 have their inputs there."""
    delay(store, "w")
    read("DELETE FROM workflow_input")
    read("UPDATE workflow_status SET inputs = 'old inputs'")
    assert store.bounce(bounce(), 77) is Verdict.APPLIED
    row = store.get_workflow("w")
    assert row is not None
    assert row.inputs == "new inputs"


@pytest.mark.parametrize(
    "change",
    [
        {"status": "'ENQUEUED'"},
        {"status": "'PENDING'"},
        {"status": "'CANCELLED'"},
        {"is_debounced": "FALSE"},
        {"name": "'other'"},
        {"queue_name": "'other'"},
        {"deduplication_id": "NULL"},
        {"deduplication_id": "'other'"},
        {"application_name": "'other-app'"},
        {"workflow_uuid": "'other'"},
    ],
    ids=str,
)
@pytest.mark.parametrize("with_step", [False, True])
def test_what_is_not_the_delayed_holder_any_more_is_left_alone(
    store: SqlStore, read: Rows, change: dict[str, str], with_step: bool
) -> None:
    store.commit([start("p")])
    delay(store, "w")
    ((name, value),) = change.items()
    read(f"UPDATE workflow_status SET {name} = {value} WHERE workflow_uuid = 'w'")
    before = everything(read)
    assert store.bounce(bounce(step=step("p", 1) if with_step else None), 77) is None
    assert everything(read) == before


def test_a_row_of_nobody_is_claimed_and_a_caller_without_name_claims_nothing(store: SqlStore, read: Rows) -> None:
    delay(store, "w", application_name=None)
    assert store.bounce(bounce(application_name=None), 77) is Verdict.APPLIED
    assert stored(read)[2] is None
    assert store.bounce(bounce(), 77) is Verdict.APPLIED
    assert stored(read)[2] == "test-app"
    assert store.bounce(bounce(application_name=None, inputs="of anybody"), 77) is Verdict.APPLIED
    assert stored(read)[2:] == ("test-app", 77, "of anybody")


def test_a_bounce_is_written_together_with_the_step_of_the_caller(store: SqlStore, read: Rows) -> None:
    store.commit([start("p")])
    delay(store, "w")
    record = step("p", 3, child_workflow_id="w")
    assert store.bounce(bounce(step=record), 77) is Verdict.APPLIED
    assert stored(read)[4] == "new inputs"
    (found,) = store.list_steps("p", load_output=True, limit=None, offset=None)
    assert (found.step_id, found.name, found.output, found.serialization) == (3, "charge", "output of p/3", "py_pickle")
    assert (found.started_at_ms, found.completed_at_ms, found.child_workflow_id) == (1_003, 2_003, "w")
    row = read("SELECT application_name, retention_timestamp AS at FROM operation_outputs")
    assert row == [{"application_name": "test-app", "at": 77}]


def test_a_repeated_bounce_finds_its_own_step_and_changes_nothing(store: SqlStore, read: Rows) -> None:
    store.commit([start("p")])
    delay(store, "w")
    mine = bounce(step=step("p", 1))
    assert store.bounce(mine, 77) is Verdict.APPLIED
    assert store.bounce(bounce(inputs="newer"), 78) is Verdict.APPLIED
    before = everything(read)
    assert store.bounce(mine, 79) is Verdict.APPLIED
    assert everything(read) == before
    read("UPDATE workflow_status SET status = 'ENQUEUED', deduplication_id = NULL WHERE workflow_uuid = 'w'")
    assert store.bounce(mine, 80) is Verdict.APPLIED


@pytest.mark.parametrize("owner", ["'another'", "NULL"])
def test_a_caller_that_lost_its_workflow_bounces_nothing(store: SqlStore, read: Rows, owner: str) -> None:
    store.commit([start("p")])
    delay(store, "w")
    read(f"UPDATE workflow_status SET owner_xid = {owner} WHERE workflow_uuid = 'p'")
    before = everything(read)
    assert store.bounce(bounce(step=step("p", 1)), 77) is Verdict.FENCED
    assert store.bounce(bounce(step=step("unknown", 1)), 77) is Verdict.FENCED
    assert everything(read) == before


def test_a_step_id_in_use_is_reported_and_nothing_is_bounced(store: SqlStore, read: Rows) -> None:
    store.commit([start("p")])
    store.commit([step("p", 1, completed_at_ms=5)])
    delay(store, "w")
    before = everything(read)
    assert store.bounce(bounce(step=step("p", 1)), 77) is Verdict.REPEATED
    assert everything(read) == before


@pytest.mark.parametrize("name", ["inputs", "serialization", "deduplication_id"])
def test_a_text_that_no_database_holds_is_refused(store: SqlStore, read: Rows, name: str) -> None:
    delay(store, "w")
    before = everything(read)
    for text in ("a\0b", "\ud800"):
        with pytest.raises(StoreRefused):
            store.bounce(dataclasses.replace(bounce(), **{name: text}), 77)
    assert everything(read) == before


def test_bounces_and_promotions_of_one_workflow_exclude_each_other(
    open_another: OpenAnother, database_url: str
) -> None:
    """03 R150: with inputs and due time always of the same call, and none written after the promotion."""
    stores = [open_another() for _ in range(4)]
    for round_number in range(15):
        workflow_id = f"w{round_number}"
        delay(stores[0], workflow_id)
        begin = threading.Barrier(len(stores))
        applied: list[list[int]] = [[] for _ in stores]

        def call(
            number: int, workflow_id: str = workflow_id, begin: Any = begin, applied: list[list[int]] = applied
        ) -> None:
            begin.wait()
            for count in range(20):
                value = 1_000_000 + number * 1_000 + count
                made = bounce(workflow_id, delay_until_ms=value, inputs=str(value))
                if stores[number].bounce(made, value) is Verdict.APPLIED:
                    applied[number].append(value)
                if number == 0 and count == 10:
                    stores[number].promote_delayed("test-app", 2_000_000)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(len(stores))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        due, _, _, updated_at, inputs = stored(lambda sql, *values: rows(database_url, sql, *values), workflow_id)
        assert str(due) == inputs == str(updated_at)
        assert due in {values[-1] for values in applied if values}
        (row,) = rows(database_url, "SELECT status FROM workflow_status WHERE workflow_uuid = %s", workflow_id)
        # A promotion passes over a row that is being bounced, and comes back.
        assert row["status"] == "ENQUEUED" or len(stores[0].promote_delayed("test-app", 2_000_000)) == 1
        assert stores[0].bounce(bounce(workflow_id), 77) is None


@pytest.mark.parametrize("backend", ["postgres"])
@pytest.mark.parametrize("ids", [("a", "b"), ("b", "a")], ids=["caller first", "caller second"])
def test_a_bounce_locks_in_the_order_of_the_ids(
    open_another: OpenAnother, database_url: str, ids: tuple[str, str]
) -> None:
    """As every other statement does, so that they cannot wait for each other in a circle."""
    caller, delayed = ids
    store = open_another()
    store.commit([start(caller)])
    delay(store, delayed)
    lock = "SELECT 1 FROM dbos.workflow_status WHERE workflow_uuid = %s FOR UPDATE NOWAIT"
    waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    answers: list[Any] = []
    with psycopg.connect(database_url) as other, psycopg.connect(database_url, autocommit=True) as observer:
        other.execute(lock, ("a",))
        thread = threading.Thread(
            target=lambda: answers.append(store.bounce(bounce(delayed, step=step(caller, 1)), 77))
        )
        thread.start()
        wait_until(lambda: observer.execute(waits).fetchone())
        other.execute(lock, ("b",))
        other.rollback()
    thread.join()
    assert answers == [Verdict.APPLIED]
