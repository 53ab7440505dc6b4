"""Waking up across processes (04 section 9): channels, listeners, and what happens when hints are wrong or missing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from dbos import DBOS, DBOSClient, SetWorkflowID
from dbos.engine.engine import Engine
from dbos.error import DBOSException
from dbos.storage import listening
from dbos.storage.store import StoreUnavailable
from tests.helpers import rows, wait_until

Config = dict[str, Any]
ON_POSTGRES = pytest.mark.parametrize("backend", ["postgres"])
HOUR = 3600
# Sessions that hold a lock which says that they listen (see docs/architecture.md, signals).
LISTENERS = """
SELECT pid FROM pg_locks
WHERE locktype = 'advisory' AND granted AND mode = 'ShareLock' AND classid = %s::bigint::oid AND objid = %s::bigint::oid
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture
def quiet_app(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[DBOS]]:
    """An application that looks by itself once per hour, and sees quickly who else listens."""
    monkeypatch.setattr(listening, "LISTENERS_LOOK_SECONDS", 0.02)
    DBOS(config={**config, "notification_listener_polling_interval_sec": HOUR})
    DBOS.launch()
    yield DBOS
    DBOS.destroy(destroy_registry=True)


def engine() -> Engine:
    found = DBOS(config=None).engine
    assert found is not None
    return found


def nothing(workflow_id: str = "w") -> None:
    """A workflow that has ended."""

    @DBOS.workflow(name="nothing")
    def workflow() -> None:
        pass

    with SetWorkflowID(workflow_id):
        workflow()


class Waiting:
    """Somebody who waits for the event k of w in a thread."""

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.thread = threading.Thread(target=lambda: self.found.append(DBOS.get_event("w", "k", HOUR)))
        self.thread.start()
        wait_until(lambda: engine().signals.awaited("event") == [("w", "k")])
        # The look that a waiter begins with is over, so that only a hint or a poll leads to another one.
        wait_until(lambda: next(iter(engine().signals._waiters[("event", ("w", "k"))]))._wake is not None)  # type: ignore[attr-defined]

    def end(self) -> Any:
        self.thread.join()
        return self.found[0]


def set_silently(database_url: str) -> None:
    """As a process that announces nothing."""
    rows(database_url, "INSERT INTO workflow_events VALUES ('w', 'k', '5', 'portable_json')")


def listeners(database_url: str) -> list[int]:
    key = listening.LISTENERS_LOCK % 2**64
    return [row["pid"] for row in rows(database_url, LISTENERS, key >> 32, key % 2**32)]


@ON_POSTGRES
def test_hints_for_nobody_are_ignored(quiet_app: type[DBOS], database_url: str) -> None:
    """04 R802: from other schemas, about unknown waiters, without a separator; the next good one counts."""
    nothing()
    waiting = Waiting()
    for channel in listening.PAIR_CHANNELS:
        for payload in ("", "::", "nobody::k", "w", "w::k::more", "😀" * 500, "{}"):
            rows(database_url, "SELECT pg_notify(%s, %s)", channel, payload)
    rows(database_url, "SELECT pg_notify('dbos_signals_channel', 'no JSON')")
    set_silently(database_url)
    rows(database_url, "SELECT pg_notify('dbos_workflow_events_channel', 'w::k')")
    assert waiting.end() == 5


@ON_POSTGRES
def test_the_separator_in_ids_and_keys_costs_a_look_at_most(quiet_app: type[DBOS], database_url: str) -> None:
    """04 R802: `a::b` and `c` or `a` and `b::c`, a hint cannot tell; both wake."""
    found: dict[tuple[str, str], Any] = {}
    pairs = [("a::b", "c"), ("a", "b::c")]

    def wait(pair: tuple[str, str]) -> None:
        found[pair] = DBOS.get_event(*pair, HOUR)

    threads = [threading.Thread(target=wait, args=(pair,)) for pair in pairs]
    for pair, thread in zip(pairs, threads):
        nothing(pair[0])
        thread.start()
    wait_until(lambda: len(engine().signals.awaited("event")) == 2)
    for workflow_id, key in pairs:
        rows(database_url, "INSERT INTO workflow_events VALUES (%s, %s, '5', 'portable_json')", workflow_id, key)
    rows(database_url, "SELECT pg_notify('dbos_workflow_events_channel', 'a::b::c')")
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(pairs, 5)


@ON_POSTGRES
def test_after_the_loss_of_the_connection_that_listens_everybody_looks_again(
    quiet_app: type[DBOS], database_url: str
) -> None:
    """04 R804, section 11, 16, and 12, 19: what was announced meanwhile is lost, and found."""
    nothing()
    waiting = Waiting()
    set_silently(database_url)
    (pid,) = listeners(database_url)
    rows(database_url, "SELECT pg_terminate_backend(%s)", pid)
    assert waiting.end() == 5
    (other,) = wait_until(lambda: listeners(database_url))
    assert other != pid


@ON_POSTGRES
@pytest.mark.parametrize("listens", [False, True])
def test_a_client_listens_only_if_it_is_told_to(app: type[DBOS], database_url: str, listens: bool) -> None:
    """04 R805: an application always does."""
    assert len(listeners(database_url)) == 1
    with DBOSClient(system_database_url=database_url, use_listen_notify=listens):
        wait_until(lambda: len(listeners(database_url)) == 1 + listens)
    wait_until(lambda: len(listeners(database_url)) == 1)


@ON_POSTGRES
def test_programs_of_others_are_told_of_events_and_streams(quiet_app: type[DBOS], database_url: str) -> None:
    """04 R806, section 9.1: with the commit, on their channels, as workflow and key; once one is seen to listen."""

    @DBOS.workflow()
    def workflow() -> None:
        DBOS.set_event("k", 1)
        DBOS.write_stream("s::t", 1)
        DBOS.send("w", 1)
        DBOS.send("w", 1, "t")
        # Too long for a notification, and no reason to fail or to drop the others (section 11, 17).
        DBOS.set_event("x" * 9000, 1)
        DBOS.send("w", 1, "x" * 9000)
        DBOS.set_event("end", 1)

    told: set[tuple[str, str]] = set()
    expected = {
        ("dbos_workflow_events_channel", "w::k"),
        ("dbos_streams_channel", "w::s::t"),
        ("dbos_notifications_channel", "w::__null__topic__"),
        ("dbos_notifications_channel", "w::t"),
        ("dbos_workflow_events_channel", "w::end"),
    }
    with psycopg.connect(database_url, autocommit=True) as stranger:
        for channel in listening.PAIR_CHANNELS:
            stranger.execute(f"LISTEN {channel}".encode())
        wait_until(lambda: engine().store._db._listening.strangers_listen)  # type: ignore[attr-defined]
        with SetWorkflowID("w"):
            workflow()
        for notification in stranger.notifies(timeout=30):
            told.add((notification.channel, notification.payload))
            if notification.payload == "w::end":
                break
    assert told == expected


@pytest.mark.usefixtures("dbos_log")
def test_a_look_that_fails_does_not_end_the_wait(
    config: Config, database_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """04 R801, R811: it is logged, and there is another one."""
    DBOS(config={**config, "notification_listener_polling_interval_sec": 0.01})
    DBOS.launch()
    nothing()
    store, failed = engine().store, list[int]()
    find_set_events = store.find_set_events

    def failing(wanted: Any) -> Any:
        if len(failed) < 2:
            failed.append(1)
            raise (StoreUnavailable("gone for a moment") if len(failed) == 1 else RuntimeError("no idea"))
        return find_set_events(wanted)

    monkeypatch.setattr(store, "find_set_events", failing)
    monkeypatch.setattr(engine().watcher, "interval_seconds", 0.01)
    waiting = Waiting()
    wait_until(lambda: len(failed) == 2)
    set_silently(database_url)
    assert waiting.end() == 5
    assert "gone for a moment" in caplog.text
    assert "The watcher service met an error and goes on" in caplog.text
    DBOS.destroy(destroy_registry=True)


@ON_POSTGRES
def test_without_notifications_events_and_streams_are_found_by_looking(config: Config, database_url: str) -> None:
    """04 R810: every `notification_listener_polling_interval_sec`; one statement for all that somebody waits for."""
    DBOS(
        config={**config, "use_listen_notify": False, "notification_listener_polling_interval_sec": 0.02},
    )
    DBOS.launch()
    assert listeners(database_url) == []
    nothing()
    rows(database_url, "UPDATE workflow_status SET status = 'PENDING', owner_xid = 'another'")
    waiting = Waiting()
    values: list[Any] = []
    reader = threading.Thread(
        target=lambda: values.append(DBOS.read_stream_offset("w", "k", 0, polling_interval_sec=HOUR))
    )
    reader.start()
    wait_until(lambda: engine().signals.awaited("stream"))
    set_silently(database_url)
    insert = 'INSERT INTO streams (workflow_uuid, key, value, "offset", serialization) VALUES (%s, %s, %s, 0, %s)'
    rows(database_url, insert, "w", "k", "6", "portable_json")
    assert waiting.end() == 5
    reader.join()
    assert values == [6]
    DBOS.destroy(destroy_registry=True)


def test_destroy_is_not_held_up_by_anybody_who_waits(quiet_app: type[DBOS]) -> None:
    """04 R813 in its better form, R405, section 11, 10: every thread that waits comes back at once."""
    began = set(threading.enumerate())
    errors: list[Exception] = []

    @DBOS.workflow()
    def receiving() -> Any:
        return DBOS.recv(timeout_seconds=HOUR)

    @DBOS.workflow()
    def sleeping() -> None:
        DBOS.sleep(HOUR)

    def wait(read: Callable[[], Any]) -> None:
        try:
            read()
        except DBOSException as error:
            errors.append(error)

    DBOS.start_workflow(receiving)
    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(sleeping)
    reads: list[Callable[[], Any]] = [
        lambda: DBOS.get_event("w", "k", HOUR),
        lambda: list(DBOS.read_stream("w", "k")),
        handle.get_result,
    ]
    outside = [threading.Thread(target=wait, args=(read,)) for read in reads]
    for thread in outside:
        thread.start()
    signals = engine().signals
    wait_until(
        lambda: len(signals.awaited("cancelled")) == 2 and signals.awaited("event") and signals.awaited("stream")
    )
    DBOS.destroy(workflow_completion_timeout_sec=0)
    for thread in outside:
        thread.join(30)
        assert not thread.is_alive()
    assert len(errors) == len(reads)
    wait_until(lambda: not [t for t in set(threading.enumerate()) - began if t.name.startswith("dbos")])
