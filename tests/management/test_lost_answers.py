"""A change from outside of workflow code whose answer is lost is not made again, whatever has happened meanwhile
(05 R57, R58 in ours)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dbos import DBOS, DBOSClient
from dbos.api.runtime import state
from dbos.engine import drivers
from dbos.engine.core import Core
from dbos.storage.store import StoreUnavailable
from tests.helpers import rows, status_row, step_names
from tests.schedules.recording import declare, far

from .rows_of import add_events, add_workflow, remains
from .sides import Side

Call = Callable[[Side], Any]

CREATE_SCHEDULE = (
    "INSERT INTO workflow_schedules (schedule_id, schedule_name, workflow_name, schedule, status, context) "
    "VALUES ('id', 'nightly', 'f', '0 0 1 1 *', 'ACTIVE', 'gAROLg==')"
)
CREATE_QUEUE = "INSERT INTO queues (queue_id, name, concurrency) VALUES ('id', 'mail', 3)"


def schedule_of(side: Side, name: str) -> dict[str, Any]:
    """The arguments of a schedule that never fires here."""
    workflow = {"workflow_name": "recorded"} if side.is_client else {"workflow_fn": declare()}
    return {"schedule_name": name, "schedule": far(), **workflow}


# How to make each change, from which status, and what somebody else does before it is tried again. Done once more, the
# change would undo that, or would be refused.
CHANGES: dict[str, tuple[str, Call, tuple[str, ...]]] = {
    "cancel": (
        "ENQUEUED",
        lambda side: side.cancel_workflow("w"),
        ("UPDATE workflow_status SET status = 'ENQUEUED', completed_at = NULL",),
    ),
    "cancel with children": (
        "ENQUEUED",
        lambda side: side.cancel_workflows(["w"], cancel_children=True),
        ("UPDATE workflow_status SET status = 'PENDING', owner_xid = 'own'",),
    ),
    "resume": (
        "CANCELLED",
        lambda side: side.resume_workflow("w"),
        ("UPDATE workflow_status SET status = 'PENDING', owner_xid = 'own', recovery_attempts = 1",),
    ),
    "resume of what was deleted": (
        "CANCELLED",
        lambda side: side.resume_workflows(["w"], queue_name="nowhere"),
        ("DELETE FROM workflow_input", "DELETE FROM workflow_status"),
    ),
    "delay": (
        "DELAYED",
        lambda side: side.set_workflow_delay("w", delay_seconds=5000),
        ("UPDATE workflow_status SET delay_until_epoch_ms = 99000000000000",),
    ),
    "attributes": (
        "SUCCESS",
        lambda side: side.update_workflow_attributes("w", {"state": 1}),
        ("""UPDATE workflow_status SET attributes = '{"state": 2}'""",),
    ),
    "merged attributes": (
        "SUCCESS",
        lambda side: side.update_workflow_attributes("w", {"state": 1}, merge=True),
        ("""UPDATE workflow_status SET attributes = '{"state": 2}'""",),
    ),
    "rewind": (
        "SUCCESS",
        lambda side: side.rewind_workflow("w", queue_name="nowhere"),
        (
            "UPDATE workflow_status SET status = 'SUCCESS', queue_name = NULL, request = NULL",
            "INSERT INTO operation_outputs (workflow_uuid, function_id, function_name) VALUES ('w', 1, 'again')",
        ),
    ),
    "rewind of what runs again": (
        "SUCCESS",
        lambda side: side.rewind_workflow("w", queue_name="nowhere"),
        ("UPDATE workflow_status SET status = 'PENDING', owner_xid = 'own'",),
    ),
    "fork": (
        "SUCCESS",
        lambda side: side.fork_workflow("w", 1, queue_name="nowhere"),
        (
            "DELETE FROM workflow_input WHERE workflow_uuid <> 'w'",
            "DELETE FROM workflow_status WHERE forked_from = 'w'",
        ),
    ),
    "pause of a schedule": (
        "SUCCESS",
        lambda side: side.pause_schedule("nightly"),
        ("UPDATE workflow_schedules SET status = 'ACTIVE'",),
    ),
    "creation of a schedule": (
        "SUCCESS",
        lambda side: side.create_schedule(**schedule_of(side, "weekly")),
        ("DELETE FROM workflow_schedules WHERE schedule_name = 'weekly'",),
    ),
    "applied schedules": (
        "SUCCESS",
        lambda side: side.apply_schedules([schedule_of(side, "nightly"), schedule_of(side, "weekly")]),
        (
            "UPDATE workflow_schedules SET schedule = '0 0 2 2 *' WHERE schedule_name = 'nightly'",
            "DELETE FROM workflow_schedules WHERE schedule_name = 'weekly'",
        ),
    ),
    "run of a schedule by hand": (
        "SUCCESS",
        lambda side: side.trigger_schedule("nightly"),
        (
            "DELETE FROM workflow_input WHERE workflow_uuid LIKE 'sched-nightly-%'",
            "DELETE FROM workflow_status WHERE workflow_uuid LIKE 'sched-nightly-%'",
        ),
    ),
    "deletion of a schedule": (
        "SUCCESS",
        lambda side: side.delete_schedule("nightly"),
        (CREATE_SCHEDULE,),
    ),
    "registration of a queue": (
        "SUCCESS",
        lambda side: side.register_queue("new", on_conflict="always_update"),
        ("DELETE FROM queues WHERE name = 'new'",),
    ),
    "registration of a queue that is there": (
        "SUCCESS",
        lambda side: side.register_queue("mail", global_concurrency=5, on_conflict="always_update"),
        ("UPDATE queues SET concurrency = 9, updated_at = updated_at + 1",),
    ),
    "limit of a queue": (
        "SUCCESS",
        lambda side: side.retrieve_queue("mail").set_global_concurrency(5),
        ("UPDATE queues SET concurrency = 9, updated_at = updated_at + 1",),
    ),
    "deletion of a queue": (
        "SUCCESS",
        lambda side: side.delete_queue("mail"),
        (CREATE_QUEUE,),
    ),
    "delete": (
        "SUCCESS",
        lambda side: side.delete_workflow("w"),
        ("INSERT INTO workflow_status (workflow_uuid, status, name) VALUES ('w', 'SUCCESS', 'started anew')",),
    ),
}


def contents(database_url: str) -> list[Any]:
    tables = (
        "workflow_status",
        "workflow_input",
        "operation_outputs",
        "workflow_events",
        "workflow_schedules",
        "queues",
    )
    return [rows(database_url, f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


def core_of(side: Side) -> Core:
    if side.is_client:
        core: Core = side._target._session.core  # type: ignore[union-attr]
        return core
    assert state.instance is not None
    assert state.instance.engine is not None
    return state.instance.engine


@pytest.fixture(autouse=True)
def _tries_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_pauses() -> Iterator[float]:
        while True:
            yield 0.0

    monkeypatch.setattr(drivers, "retry_pauses", no_pauses)


class Losing:
    """The transactions of a store: that of the next change is committed or rolled back, and nobody is told which."""

    def __init__(self, side: Side, meanwhile: Callable[[], None], *, commits: bool) -> None:
        db: Any = core_of(side).store._db  # type: ignore[attr-defined]
        self._transaction = db.transaction
        self._meanwhile = meanwhile
        self._commits = commits
        self.lost = 0
        db.transaction = self

    @contextmanager
    def __call__(self) -> Iterator[Any]:
        if self.lost:
            with self._transaction() as transaction:
                yield transaction
            return
        try:
            with self._transaction() as transaction:
                yield transaction
                if not self._commits:
                    raise StoreUnavailable("the connection was lost before the commit")
        except StoreUnavailable:
            if self._commits:
                raise
        self.lost += 1
        self._meanwhile()
        raise StoreUnavailable("the answer was lost")


def prepare(database_url: str, status: str) -> None:
    for table in ("events", "events_history", "input", "status", "schedules"):
        rows(database_url, f"DELETE FROM workflow_{table}")
    rows(database_url, "DELETE FROM operation_outputs")
    rows(database_url, "DELETE FROM queues")
    rows(database_url, CREATE_SCHEDULE)
    rows(database_url, CREATE_QUEUE)
    add_workflow(database_url, "w", status)
    add_workflow(database_url, "child", "DELAYED", parent_workflow_id="w")
    add_events(database_url, "w", (1, "k", "v"))


@pytest.mark.parametrize("backend", ["postgres"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_was_committed_is_not_made_again(sides: list[Side], database_url: str, name: str) -> None:
    """The database is asked what became of the transaction. (In a file no outcome is ever unknown.)"""
    status, call, meanwhile = CHANGES[name]
    for side in sides[::2]:
        prepare(database_url, status)
        before, after = contents(database_url), list[Any]()

        def change_meanwhile(after: list[Any] = after, before: list[Any] = before) -> None:
            assert contents(database_url) != before
            for sql in meanwhile:
                rows(database_url, sql)
            after.extend(contents(database_url))

        losing = Losing(side, change_meanwhile, commits=True)
        call(side)
        assert losing.lost == 1
        assert contents(database_url) == after


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_was_rolled_back_is_made_at_the_next_try(sides: list[Side], database_url: str, name: str) -> None:
    """Nothing was written, so nothing is taken for done."""
    status, call, _ = CHANGES[name]
    for side in sides[::2]:
        prepare(database_url, status)
        before = contents(database_url)

        def nothing_happened(before: list[Any] = before) -> None:
            assert contents(database_url) == before

        losing = Losing(side, nothing_happened, commits=False)
        call(side)
        assert losing.lost == 1
        assert contents(database_url) != before


@pytest.mark.parametrize("backend", ["postgres"])
def test_a_transaction_that_has_not_ended_is_awaited(sides: list[Side], database_url: str) -> None:
    """The server may still hold the connection that was lost: who asked then tries again later."""
    import psycopg

    add_workflow(database_url, "w", "SUCCESS")
    side = sides[0]
    store: Any = core_of(side).store
    find, answers = store._db.read, list[Any]()
    with psycopg.connect(database_url) as held:
        cursor = held.execute("SELECT txid_current()::text")
        row = cursor.fetchone()
        assert row is not None

        def read(name: str, parameters: Any = ()) -> Any:
            if name != "find_transaction":
                return find(name, parameters)
            found = find(name, row)
            answers.append(found[0][0])
            if answers == ["in progress"] * 3:
                held.commit()
            return found

        store._db.read = read
        Losing(side, lambda: None, commits=False)
        side.update_workflow_attributes("w", {"state": 1})
    assert answers == ["in progress"] * 3 + ["committed"]


@pytest.mark.parametrize("backend", ["postgres"])
def test_a_server_that_never_heard_of_the_transaction_makes_the_change(sides: list[Side], database_url: str) -> None:
    """A replica that took over without it: the id lies in its future."""
    add_workflow(database_url, "w", "SUCCESS")
    store: Any = core_of(sides[0]).store
    find, asked = store._db.read, list[str]()

    def read(name: str, parameters: Any = ()) -> Any:
        if name != "find_transaction":
            return find(name, parameters)
        asked.append(name)
        return find(name, (str(2**40),))

    store._db.read = read
    Losing(sides[0], lambda: None, commits=False)
    sides[0].update_workflow_attributes("w", {"state": 1})
    assert asked == ["find_transaction"]
    (status,) = DBOS.list_workflows()
    assert status.attributes == {"state": 1}


def test_a_client_that_does_not_retry_reports_the_lost_connection(app: type[DBOS], database_url: str) -> None:
    """05 R56: and a lock that is held is still awaited."""
    add_workflow(database_url, "w", "ENQUEUED")
    with DBOSClient(
        system_database_url=database_url, application_name="test-app", retry_connection_errors=False
    ) as client:
        side = Side(client, is_async=False)
        Losing(side, lambda: None, commits=False)
        side.cancel_workflow("w")
    assert status_row(database_url, "w")["status"] == "CANCELLED"
    assert step_names(database_url, "w") == {}
    assert remains(database_url, "w") == ["workflow_status", "workflow_input"]
