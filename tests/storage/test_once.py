"""Changes of queues and schedules are made once for each `Once`, whatever others do between the tries."""

from __future__ import annotations

import dataclasses

from dbos.records import Verdict
from dbos.storage.database import SqlStore
from dbos.storage.once import Once
from dbos.types import QueueConfig, Schedule

MAIL = QueueConfig("mail", "test-app", global_concurrency=3)
DAILY = Schedule("id", "daily", "f", None, "0 0 * * *", "ACTIVE", "", None, False, None, None, "test-app")


def test_a_repeated_registration_does_not_undo_a_deletion(store: SqlStore) -> None:
    once = Once()
    assert store.register_queue(MAIL, 1, overwrite=True, once=once).global_concurrency == 3
    store.delete_queue("mail")
    assert store.register_queue(MAIL, 1, overwrite=True, once=once).name == "mail"
    assert store.find_queue("mail") is None


def test_a_repeated_registration_tells_what_has_become_of_the_queue(store: SqlStore) -> None:
    once = Once()
    store.register_queue(MAIL, 1, overwrite=True, once=once)
    changed = dataclasses.replace(MAIL, global_concurrency=9)
    store.register_queue(changed, 2, overwrite=True)
    assert store.register_queue(MAIL, 1, overwrite=True, once=once).global_concurrency == 9


def test_a_repeated_deletion_spares_what_was_registered_since(store: SqlStore) -> None:
    once = Once()
    store.register_queue(MAIL, 1, overwrite=True)
    store.delete_queue("mail", once=once)
    store.register_queue(MAIL, 2, overwrite=True)
    store.delete_queue("mail", once=once)
    assert store.find_queue("mail") is not None


def test_a_repeated_update_does_not_undo_another_one(store: SqlStore) -> None:
    once = Once()
    known = store.register_queue(MAIL, 1, overwrite=True)
    update = dataclasses.replace(known, global_concurrency=5)
    assert store.update_queue(update, 2, once=once)
    store.register_queue(dataclasses.replace(MAIL, global_concurrency=9), 3, overwrite=True)
    assert store.update_queue(update, 2, once=once)
    found = store.find_queue("mail")
    assert found is not None
    assert found.global_concurrency == 9


def test_an_update_of_what_others_have_changed_is_not_done(store: SqlStore) -> None:
    """Nothing was written, so a lost answer to it must not make it count as done."""
    once = Once()
    known = store.register_queue(MAIL, 1, overwrite=True)
    store.register_queue(dataclasses.replace(MAIL, global_concurrency=9), 2, overwrite=True)
    for _ in range(2):
        assert not store.update_queue(dataclasses.replace(known, global_concurrency=5), 3, once=once)
    assert not once.is_done(store._db)


def test_repeated_changes_of_schedules_do_not_undo_deletions(store: SqlStore) -> None:
    created, applied = Once(), Once()
    assert store.create_schedule(DAILY, None, once=created) is Verdict.APPLIED
    store.delete_schedule("daily", None)
    assert store.create_schedule(DAILY, None, once=created) is Verdict.APPLIED
    assert store.find_schedule("daily") is None
    assert store.apply_schedules([DAILY], once=applied) is None
    store.delete_schedule("daily", None)
    assert store.apply_schedules([DAILY], once=applied) is None
    assert store.find_schedule("daily") is None


def test_a_schedule_that_is_refused_is_refused_again(store: SqlStore) -> None:
    """Rolled back is not done."""
    once, foreign = Once(), dataclasses.replace(DAILY, schedule_id="theirs", application_name="other-app")
    store.create_schedule(foreign, None)
    for _ in range(2):
        assert store.apply_schedules([DAILY], once=once) == foreign
        assert store.create_schedule(DAILY, None, once=once) == foreign
