"""Several stores on one database, as several processes have them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest

from dbos.records import Answer, ExistingWorkflow, Record, Verdict
from dbos.storage import postgres
from dbos.storage.database import SqlStore
from dbos.storage.store import StoreUnavailable, StoreUnreachable
from dbos.types import INTERNAL_QUEUE_NAME
from tests.helpers import PATIENCE_SECONDS, rows
from tests.storage.conftest import OpenAnother
from tests.storage.making import claim, enqueue, finish, ids, start, step

T = TypeVar("T")


def together(*functions: Callable[[], T]) -> list[T]:
    """Call the functions at the same time, each on a thread; their results in order."""
    gate = threading.Barrier(len(functions))
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(number: int, function: Callable[[], T]) -> None:
        gate.wait(PATIENCE_SECONDS)
        try:
            results[number] = function()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=item) for item in enumerate(functions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    if errors:
        raise errors[0]
    return [results[number] for number in range(len(functions))]


def commit(store: SqlStore, records: list[Record]) -> list[Answer]:
    """As the journal does it: repeated until the database answers, which must not take many tries."""
    for _ in range(20):
        try:
            return store.commit(records)
        except StoreUnavailable:
            continue
    raise AssertionError("two stores keep each other from committing")


@pytest.mark.parametrize("size", [1, 50])
def test_of_two_starts_of_one_id_exactly_one_is_applied(open_another: OpenAnother, size: int) -> None:
    one, other = open_another(), open_another()

    def start_all(store: SqlStore, token: str, backwards: bool) -> Callable[[], list[Answer]]:
        numbers = range(size - 1, -1, -1) if backwards else range(size)

        def run() -> list[Answer]:
            answers: list[Answer] = []
            for turn in range(10):
                answers += commit(store, [start(f"w{turn}-{i}", creator_token=token) for i in numbers])[
                    :: -1 if backwards else 1
                ]
            return answers

        return run

    for mine, theirs in zip(*together(start_all(one, "one", False), start_all(other, "other", True))):
        assert {type(mine), type(theirs)} == {Verdict, ExistingWorkflow}
        assert Verdict.APPLIED in (mine, theirs)


def test_two_claimers_share_the_waiting_workflows(open_another: OpenAnother, database_url: str) -> None:
    """03 R86, R87."""
    one, other = open_another(), open_another()

    def read(sql: str, *parameters: Any) -> list[dict[str, Any]]:
        return rows(database_url, sql, *parameters)

    enqueue(one, read, *[f"w{i:02}" for i in range(60)])

    def claim_all(store: SqlStore, name: str) -> Callable[[], list[str]]:
        def run() -> list[str]:
            taken: list[str] = []
            turn = 0
            # Rows that the other one is just taking are passed over, so an empty claim may come too early.
            while read("SELECT 1 FROM workflow_status WHERE status = 'ENQUEUED' LIMIT 1"):
                turn += 1
                taken += ids(claim(store, f"{name}-{turn}", limit=7))
            return taken

        return run

    mine, theirs = together(claim_all(one, "one"), claim_all(other, "other"))
    assert sorted(mine + theirs) == [f"w{i:02}" for i in range(60)]
    owners = {row["owner_xid"].split("-")[0] for row in read("SELECT owner_xid FROM workflow_status")}
    assert owners == {name for name, taken in (("one", mine), ("other", theirs)) if taken}


def test_batches_over_the_same_workflows_do_not_block_each_other_for_good(open_another: OpenAnother) -> None:
    """Steps of two stores over the same workflows in opposite orders, while others are cancelled and resumed."""
    one, other, third = open_another(), open_another(), open_another()
    many = [f"w{i:02}" for i in range(40)]
    one.commit([start(w) for w in many])
    victims = many[::4]

    def record(store: SqlStore, name: str, order: list[str], first: int) -> Callable[[], list[Answer]]:
        def run() -> list[Answer]:
            found: list[Answer] = []
            for turn in range(8):
                found += commit(store, [step(w, first + turn, name=name) for w in order])
            return found

        return run

    def cancel() -> list[Answer]:
        for turn in range(8):
            for change in (
                lambda: third.cancel_workflows(victims[::-1], turn),
                lambda: third.requeue_pending("x", "y", "z"),
            ):
                for _ in range(20):
                    try:
                        change()
                        break
                    except StoreUnavailable:
                        continue
                else:
                    raise AssertionError("cancelling never got through")
        return []

    mine, theirs, _ = together(record(one, "one", many, 0), record(other, "other", many[::-1], 100), cancel)
    assert set(mine) | set(theirs) <= {Verdict.APPLIED, Verdict.FENCED}
    steps = one.load_steps(many, -1, 1_000)
    for w in set(many) - set(victims):
        assert [s.step_id for s in steps[w]] == [*range(8), *range(100, 108)]
    # Of a cancelled one a beginning was written, and an answer says exactly how much.
    for w in victims:
        applied = sum(
            answers[i] is Verdict.APPLIED
            for answers, order in ((mine, many), (theirs, many[::-1]))
            for i in range(len(answers))
            if order[i % len(order)] == w
        )
        assert applied == len(steps.get(w, []))


# --- announcements


class Heard:
    """What a store hears while it listens on a thread of its own."""

    def __init__(self, store: SqlStore) -> None:
        self.store = store
        self.errors: list[BaseException] = []
        self._queue: queue.Queue[tuple[str, list[str]]] = queue.Queue()
        self.thread = threading.Thread(target=self._listen)
        self.thread.start()
        assert self.next() == ("connected", [])

    def _listen(self) -> None:
        try:
            self.store.listen(lambda kind, workflow_ids: self._queue.put((kind, workflow_ids)))
        except BaseException as error:
            self.errors.append(error)

    def next(self) -> tuple[str, list[str]]:
        return self._queue.get(timeout=PATIENCE_SECONDS)

    def next_outcome(self) -> list[str]:
        """Passes over cancellations: a store hears its own, which travel over sessions it does not know."""
        kind, workflow_ids = self.next()
        while kind == "cancelled":
            kind, workflow_ids = self.next()
        assert kind == "finished"
        return workflow_ids

    def nothing_left(self) -> bool:
        return self._queue.empty()

    def end(self) -> None:
        self.store.close()
        self.thread.join(PATIENCE_SECONDS)
        assert not self.thread.is_alive()


@contextmanager
def listening(store: SqlStore) -> Iterator[Heard]:
    heard = Heard(store)
    try:
        yield heard
    finally:
        heard.end()
        assert heard.errors == []


def wait_until_heard(store: SqlStore, by: Heard) -> None:
    """Until the store knows that another one listens, which it learns from that one's arrival.

    What it announces before is lost, as the contract allows; so it announces until something arrives.
    """
    tries = 0
    while by.nothing_left():
        tries += 1
        store.cancel_workflows([f"nobody {tries}"], 1)
    while tries and by.next() != ("cancelled", [f"nobody {tries}"]):
        pass


@pytest.mark.parametrize("backend", ["postgres"])
def test_what_happens_in_one_store_is_announced_to_the_other(open_another: OpenAnother) -> None:
    one, other = open_another(), open_another()
    one.commit([start(w) for w in ("a", "b", "c", "lone")])
    with listening(one), listening(other) as heard:
        wait_until_heard(one, heard)
        one.commit([finish("a"), step("c", 1), finish("b")])
        kind, workflow_ids = heard.next()
        assert (kind, sorted(workflow_ids)) == ("finished", ["a", "b"])
        one.commit([finish("lone")])
        assert heard.next() == ("finished", ["lone"])
        one.commit([step("c", 2)])
        one.cancel_workflows(["c", "unknown"], 1)
        assert heard.next() == ("cancelled", ["c", "unknown"])
        one.resume_workflows(["c"], INTERNAL_QUEUE_NAME, 1)
        assert heard.next() == ("queued", [INTERNAL_QUEUE_NAME])
        one.commit([start("due", deadline_ms=5)])
        assert one.cancel_overdue("test-app", 10) == ["due"]
        assert heard.next() == ("cancelled", ["due"])
        assert heard.nothing_left()


@pytest.mark.parametrize("backend", ["postgres"])
def test_the_first_announcement_of_a_newcomer_is_heard_at_once(
    open_another: OpenAnother, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be read from the socket together with the answer to a query of the listener's own."""
    monkeypatch.setattr("dbos.storage.listening.LISTENERS_LOOK_SECONDS", 3600.0)
    one, other = open_another(), open_another()
    other.commit([start("a")])
    with listening(one) as heard, listening(other):
        other.commit([finish("a")])
        assert heard.next() == ("finished", ["a"])


@pytest.mark.parametrize("backend", ["postgres"])
def test_an_announcement_of_too_many_workflows_names_none(open_another: OpenAnother) -> None:
    one, other = open_another(), open_another()
    many = [f"workflow-{i:04}-" + "é" * 20 for i in range(300)]
    one.commit([start(w) for w in many])
    with listening(one), listening(other) as heard:
        wait_until_heard(one, heard)
        assert one.commit([finish(w) for w in many]) == [Verdict.APPLIED] * 300
        assert heard.next() == ("finished", [])
        one.cancel_workflows(many, 1)
        assert heard.next() == ("cancelled", [])


@pytest.mark.parametrize("backend", ["postgres"])
def test_a_store_does_not_hear_its_own_outcomes(open_another: OpenAnother) -> None:
    one, other = open_another(), open_another()
    one.commit([start("mine")])
    other.commit([start("theirs")])
    with listening(one) as heard_by_one, listening(other) as heard_by_other:
        wait_until_heard(one, heard_by_other)
        wait_until_heard(other, heard_by_one)
        one.commit([finish("mine")])
        assert heard_by_other.next_outcome() == ["mine"]
        other.commit([finish("theirs")])
        assert heard_by_one.next_outcome() == ["theirs"]


@pytest.mark.parametrize("backend", ["postgres"])
def test_listening_ends_with_the_store_and_reports_a_lost_connection(
    open_another: OpenAnother, database_url: str
) -> None:
    one, other = open_another(), open_another()
    heard = Heard(one)
    with listening(other):
        pass  # closing one ends its own listening and no other
    assert heard.thread.is_alive()
    rows(
        database_url,
        "SELECT pg_terminate_backend(l.pid) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database "
        "WHERE l.locktype = 'advisory' AND l.granted AND d.datname = current_database()",
    )
    heard.thread.join(PATIENCE_SECONDS)
    assert [type(error) for error in heard.errors] == [StoreUnreachable]


@pytest.mark.parametrize("backend", ["sqlite"])
def test_on_sqlite_there_is_nothing_to_listen_to(open_another: OpenAnother) -> None:
    heard: list[str] = []
    open_another().listen(lambda kind, _: heard.append(kind))
    assert heard == []


@pytest.mark.parametrize("backend", ["sqlite"])
def test_a_store_sees_that_another_one_has_committed(open_another: OpenAnother) -> None:
    one, other = open_another(), open_another()
    one.check_for_changes()
    other.check_for_changes()
    assert not one.check_for_changes()
    one.commit([start("w")])
    one.commit([step("w", 1)])
    one.cancel_workflows(["unknown"], 1)
    assert one.find_outcomes(["w"])
    assert not one.check_for_changes(), "its own commits are no news"
    assert other.check_for_changes()
    assert not other.check_for_changes(), "each commit is news once"
    other.commit([finish("w")])
    assert one.check_for_changes()
    other.find_outcomes(["w"])
    assert not one.check_for_changes()
    other.cancel_workflows(["w"], 1)
    assert not other.check_for_changes()


# --- closing


def test_a_closed_store_answers_that_it_is_unavailable(open_another: OpenAnother) -> None:
    store = open_another()
    store.commit([start("w")])
    store.close()
    calls: list[Callable[[], object]] = [
        lambda: store.commit([start("v")]),
        lambda: store.find_outcomes(["w"]),
        lambda: store.cancel_workflows(["w"], 1),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable):
            call()
    store.close()


def test_commits_at_the_same_moment_use_two_connections(open_another: OpenAnother) -> None:
    store = open_another()
    if store.backend != "postgres":
        assert not store.commits_in_parallel
        return
    assert store.commits_in_parallel
    connections = store._db
    assert isinstance(connections, postgres.PostgresConnections)
    first, second = connections._lanes
    with first.lock:
        # While somebody commits on the first connection, others do so on the second.
        (answer,) = together(lambda: store.commit([start("w"), start("v")]))
    assert answer == [Verdict.APPLIED] * 2
    assert (first.session, second.session is None) == (None, False)
    assert store.commit([finish("w")]) == [Verdict.APPLIED]
    assert first.session is not None
    # A lost connection is replaced by itself, the other one stays.
    assert second.session is not None
    second.session.connection.close()
    with first.lock:
        (answer,) = together(lambda: commit(store, [finish("v")]))
    assert answer == [Verdict.APPLIED]
    assert second.session is not None
    assert second.session.usable
