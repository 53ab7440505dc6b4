"""Claims of partitioned queues, and what a claim and a hand-back write (03 sections 6.3 to 6.7 and 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from dbos.storage.database import SqlStore
from dbos.types import Claim, ClaimedWorkflow, QueueConfig, RateLimit
from tests.helpers import rows
from tests.storage.conftest import OpenAnother, Opened
from tests.storage.making import Rows, column, enqueue, ids, start
from tests.storage.test_concurrent_stores import together

ONE_BY_ONE: dict[str, Any] = {"partition_concurrency": 1}
# Every other kind of partitioned queue.
OTHERS: list[dict[str, Any]] = [
    {"partition_concurrency": 1, "global_concurrency": 100},
    {"partition_concurrency": 1, "rate_limit": RateLimit(100, 60.0)},
    {"partition_concurrency": 1, "partition_rate_limit": RateLimit(100, 60.0)},
    {"partition_concurrency": 2},
]


def place(store: SqlStore, read: Rows, key: str, *workflow_ids: str, **given: Any) -> None:
    """Workflows that wait in a partition of queue `parts`."""
    enqueue(store, read, *workflow_ids, queue_name="parts", **given)
    for workflow_id in workflow_ids:
        read("UPDATE workflow_status SET queue_partition_key = %s WHERE workflow_uuid = %s", key, workflow_id)


def run(store: SqlStore, read: Rows, key: str, workflow_id: str, **given: Any) -> None:
    """A workflow that somebody runs in that partition."""
    store.commit([start(workflow_id, **given)])
    read(
        "UPDATE workflow_status SET queue_name = 'parts', queue_partition_key = %s WHERE workflow_uuid = %s",
        key,
        workflow_id,
    )


def claim_parts(store: SqlStore, limits: dict[str, Any], token: str = "t", limit: int = 100) -> list[str]:
    request = Claim(token, "claimer", "v1", "test-app", False, limit, None)
    return ids(store.claim_workflows(QueueConfig("parts", **limits), request, 1_000_000))


# --- one at a time


def test_a_partition_with_one_at_a_time_is_busy_whoever_runs_something_there(store: SqlStore, read: Rows) -> None:
    """03 R83: of any application or version."""
    for key, given in {
        "version": {"application_version": "v0"},
        "application": {"application_name": "other-app"},
        "nobody": {"application_name": None},
    }.items():
        run(store, read, key, f"runs {key}", **given)
        place(store, read, key, f"waits {key}")
    place(store, read, "free", "waits free")
    assert claim_parts(store, ONE_BY_ONE) == ["waits free"]
    store.cancel_workflows(["runs application"], 1)
    assert claim_parts(store, ONE_BY_ONE) == ["waits application"]


@pytest.mark.parametrize("limits", OTHERS, ids=repr)
def test_with_other_limits_too_each_application_counts_its_own(
    store: SqlStore, read: Rows, limits: dict[str, Any]
) -> None:
    """03 R75, R79."""
    run(store, read, "k", "theirs", application_name="other-app")
    place(store, read, "k", "mine")
    assert claim_parts(store, limits) == ["mine"]


def test_the_head_of_a_partition_is_the_first_that_this_process_can_run(store: SqlStore, read: Rows) -> None:
    """03 R72, R83: priority, age, id; what is for others does not block what stands behind."""
    place(store, read, "k", "other version", application_version="v9", created_at=1)
    place(store, read, "k", "other application", application_name="other-app", created_at=2)
    place(store, read, "k", "b", "a", created_at=4)
    place(store, read, "k", "c", created_at=3, priority=1)
    assert [claim_parts(store, ONE_BY_ONE, token) for token in "xy"] == [["a"], []]


def test_with_less_room_than_partitions_the_longest_waiting_go_first(store: SqlStore, read: Rows) -> None:
    """03 R83: so that none starves. The reference release draws them at random."""
    for age, key in enumerate("dacb"):
        place(store, read, key, f"first {key}", created_at=100 + age)
        place(store, read, key, f"second {key}", created_at=200 + age)
    assert claim_parts(store, ONE_BY_ONE, "x", limit=2) == ["first d", "first a"]
    assert claim_parts(store, ONE_BY_ONE, "y", limit=2) == ["first c", "first b"]
    assert claim_parts(store, ONE_BY_ONE, "z", limit=2) == []


@contextmanager
def locked(opened: Opened, workflow_id: str) -> Iterator[None]:
    """Somebody else's transaction holds the row."""
    with psycopg.connect(opened.connection.info.dsn, password=opened.connection.info.password) as other:
        other.execute("SELECT FROM dbos.workflow_status WHERE workflow_uuid = %s FOR UPDATE", (workflow_id,))
        yield
        other.rollback()


@pytest.mark.parametrize("backend", ["postgres"])
@pytest.mark.parametrize("limits", [ONE_BY_ONE, *OTHERS], ids=repr)
def test_a_head_that_is_locked_is_passed_over_and_not_replaced(
    opened: Opened, store: SqlStore, read: Rows, limits: dict[str, Any]
) -> None:
    """03 R69, R83, R84: the claim does not wait, takes the other partitions, and keeps the order of this one."""
    place(store, read, "a", "a1", created_at=1)
    place(store, read, "b", "b1", created_at=2)
    if limits["partition_concurrency"] == 1:
        place(store, read, "a", "a2", created_at=3)
    with locked(opened, "a1"):
        assert claim_parts(store, limits, "x") == ["b1"]
    assert claim_parts(store, limits, "y") == ["a1"]


@pytest.mark.parametrize("backend", ["postgres"])
@pytest.mark.parametrize("limits", [{}, {"global_concurrency": 2}], ids=repr)
def test_a_row_that_is_locked_is_passed_over(
    opened: Opened, store: SqlStore, read: Rows, limits: dict[str, Any]
) -> None:
    """03 R69, R87."""
    enqueue(store, read, "first", "second", "third", queue_name="parts")
    with locked(opened, "first"):
        assert claim_parts(store, limits, "x", limit=2) == ["second", "third"]
    store.cancel_workflows(["second", "third"], 1)
    assert claim_parts(store, limits, "y") == ["first"]


@pytest.mark.parametrize("backend", ["postgres"])
def test_an_overdue_row_that_is_locked_is_left_for_the_next_time(opened: Opened, store: SqlStore, read: Rows) -> None:
    """03 R99, R100: so is one that is due."""
    enqueue(store, read, "a", "b", deadline_ms=1)
    enqueue(store, read, "c", "d", status="DELAYED")
    read("UPDATE workflow_status SET delay_until_epoch_ms = 1")
    with locked(opened, "a"), locked(opened, "c"):
        assert store.cancel_overdue("test-app", 2) == ["b"]
        assert len(store.promote_delayed("test-app", 2)) == 1
    assert store.cancel_overdue("test-app", 2) == ["a"]
    assert len(store.promote_delayed("test-app", 2)) == 1


# --- concurrent claims


@pytest.mark.parametrize("limits", [{"global_concurrency": 5}, {"rate_limit": RateLimit(5, 3600.0)}], ids=repr)
def test_claims_at_the_same_moment_never_exceed_a_shared_limit(
    open_another: OpenAnother, database_url: str, limits: dict[str, Any]
) -> None:
    """03 R86, R88, R89; section 15, 4: not with two versions, whose rows are apart, either."""
    stores = [open_another() for _ in range(3)]

    def read(sql: str, *parameters: Any) -> list[dict[str, Any]]:
        return rows(database_url, sql, *parameters)

    for version in ("v1", "v2"):
        waiting = [f"{version} {number}" for number in range(9)]
        enqueue(stores[0], read, *waiting, queue_name="parts", application_version=version)

    def claim_some(store: SqlStore, version: str, token: str) -> Callable[[], list[ClaimedWorkflow]]:
        request = Claim(token, "claimer", version, "test-app", False, 100, None)
        return lambda: store.claim_workflows(QueueConfig("parts", **limits), request, 1_000_000)

    claims = [claim_some(store, version, f"t{n}") for n, (store, version) in enumerate(zip(stores, ("v1", "v2", "v1")))]
    claimed = [workflow for part in together(*claims) for workflow in part]
    assert len({workflow.workflow_id for workflow in claimed}) == len(claimed) == 5


def test_background_jobs_of_several_processes_do_each_thing_once(open_another: OpenAnother, database_url: str) -> None:
    """03 R98: every process may run them; none waits for a lock of another."""
    one, other = open_another(), open_another()

    def read(sql: str, *parameters: Any) -> list[dict[str, Any]]:
        return rows(database_url, sql, *parameters)

    enqueue(one, read, *[f"d{number:02}" for number in range(30)], status="DELAYED")
    enqueue(one, read, *[f"o{number:02}" for number in range(30)], deadline_ms=1)
    read("UPDATE workflow_status SET delay_until_epoch_ms = 1 WHERE status = 'DELAYED'")
    promoted = together(lambda: one.promote_delayed("test-app", 2), lambda: other.promote_delayed("test-app", 2))
    cancelled = together(lambda: one.cancel_overdue("test-app", 2), lambda: other.cancel_overdue("test-app", 2))
    assert sum(map(len, promoted)) == 30
    assert sorted(cancelled[0] + cancelled[1]) == [f"o{number:02}" for number in range(30)]


# --- what is written


@pytest.mark.parametrize("limited", [False, True])
def test_what_a_claim_writes_and_what_it_leaves(store: SqlStore, read: Rows, limited: bool) -> None:
    """03 R91: one token for all; start times of the database; whether there is a rate limit now."""
    enqueue(store, read, "a", "b", queue_name="parts", priority=7, application_name=None)
    # `b` has been started before, when the queue had a limiter or had none.
    read(
        "UPDATE workflow_status SET queue_partition_key = 'k', rate_limited = %s, recovery_attempts = 4, "
        "deduplication_id = workflow_uuid, updated_at = 5",
        not limited,
    )
    before = {row["workflow_uuid"]: row for row in read("SELECT * FROM workflow_status")}
    limits: dict[str, Any] = {"partition_concurrency": 5}
    if limited:
        limits["partition_rate_limit"] = RateLimit(100, 60.0)
    assert claim_parts(store, limits, "token") == ["a", "b"]
    after = read("SELECT * FROM workflow_status")
    for row in after:
        old = before[row["workflow_uuid"]]
        changed = {name for name in row if row[name] != old[name]}
        assert changed == {
            "status", "owner_xid", "executor_id", "application_name", "started_at_epoch_ms", "updated_at",
            "rate_limited", "recovery_attempts",
        }  # fmt: skip
        assert (row["status"], row["owner_xid"], row["executor_id"]) == ("PENDING", "token", "claimer")
        assert (row["application_name"], row["recovery_attempts"]) == ("test-app", 5)
        assert bool(row["rate_limited"]) is limited
        assert row["updated_at"] == row["started_at_epoch_ms"]
    assert len({row["started_at_epoch_ms"] for row in after}) == 1


def test_handing_back_keeps_everything_but_the_owner(store: SqlStore, read: Rows) -> None:
    """03 R108, R110, R111: so it goes to the front of its priority, with its deadline and its deduplication id."""
    enqueue(store, read, "w", queue_name="parts", priority=3, timeout_ms=60_000)
    read("UPDATE workflow_status SET queue_partition_key = 'k', deduplication_id = 'd', attributes = '{}'")
    assert claim_parts(store, ONE_BY_ONE) == ["w"]
    (before,) = read("SELECT * FROM workflow_status")
    assert store.requeue_pending("claimer", "v1", "test-app") == ["w"]
    (after,) = read("SELECT * FROM workflow_status")
    changed = {name for name in after if after[name] != before[name]}
    assert changed - {"updated_at"} == {"status", "owner_xid", "started_at_epoch_ms"}
    assert (after["status"], after["owner_xid"], after["started_at_epoch_ms"]) == ("ENQUEUED", None, None)
    # Somebody alive has it now: a late request has no effect.
    request = Claim("t2", "alive", "v1", "test-app", False, 1, None)
    assert ids(store.claim_workflows(QueueConfig("parts", **ONE_BY_ONE), request, 1_000_000)) == ["w"]
    assert store.requeue_pending("claimer", "v1", "test-app") == []
    assert column(read, "owner_xid", "w") == ["t2"]


def test_promotion_is_for_the_own_application_and_for_what_nobody_owns(store: SqlStore, read: Rows) -> None:
    """03 R73, R99: it takes the key of debounced work only, and changes nothing else."""
    enqueue(store, read, "own", "debounced", "later", status="DELAYED")
    enqueue(store, read, "unowned", status="DELAYED", application_name=None)
    enqueue(store, read, "theirs", status="DELAYED", application_name="other-app")
    read("UPDATE workflow_status SET delay_until_epoch_ms = 100, deduplication_id = workflow_uuid")
    read("UPDATE workflow_status SET delay_until_epoch_ms = 101 WHERE workflow_uuid = 'later'")
    read("UPDATE workflow_status SET is_debounced = TRUE WHERE workflow_uuid = 'debounced'")
    before = {row["workflow_uuid"]: row for row in read("SELECT * FROM workflow_status")}
    assert store.promote_delayed("test-app", 99) == []
    assert len(store.promote_delayed("test-app", 100)) == 3
    for row in read("SELECT * FROM workflow_status"):
        name = row["workflow_uuid"]
        changed = {column for column in row if row[column] != before[name][column]}
        expected = {"own": {"status"}, "unowned": {"status"}, "debounced": {"status", "deduplication_id"}}
        assert changed == expected.get(name, set())
        assert row["status"] == ("ENQUEUED" if name in expected else "DELAYED")
    assert store.find_next_delayed("test-app") == 101


def test_times_are_milliseconds_and_what_shares_one_goes_by_its_id(store: SqlStore, read: Rows) -> None:
    """03 R72, R74, R82; section 15, 18: on SQLite under every Python, in rows of every age."""
    made = []
    for number in range(40):
        store.commit([start(f"w{number:02}", status="ENQUEUED", owner_token=None)])
        read("UPDATE workflow_status SET queue_name = 'parts' WHERE workflow_uuid = %s", f"w{number:02}")
        made += column(read, "created_at", f"w{number:02}")
    assert made == sorted(made)
    # Whole seconds would be multiples of a thousand, all of them.
    assert any(at_ms % 1000 for at_ms in made)
    request = Claim("t", "claimer", "v1", "test-app", False, 40, None)
    claimed = ids(store.claim_workflows(QueueConfig("parts"), request, 1_000_000))
    assert claimed == [f"w{number:02}" for number in range(40)]
    assert any(at_ms % 1000 for at_ms in column(read, "started_at_epoch_ms", "w00", "w39"))
