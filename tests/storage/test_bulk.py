"""The store contract: `enqueue_workflows`, many workflows in one transaction, all or none."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dbos.records import DeduplicationTaken, Enqueue, ExistingWorkflow, QueuePlace, Verdict, WorkflowStarted
from dbos.storage import bulk
from dbos.storage.database import SqlStore
from dbos.storage.postgres import PostgresTransaction
from dbos.storage.sqlite import SqliteTransaction
from dbos.storage.store import BulkRefused, StoreUnavailable
from tests.helpers import rows
from tests.storage.conftest import OpenAnother
from tests.storage.making import LARGEST, Rows, child, column, everything, start

# Every character that COPY's text format or JSON takes for something else.
AWKWARD = "a\tb\nc\rd\\e\\.f\\N\"g'h\x01i\u2028é🙂,{}"


def waiting(workflow_id: str, *, queue: QueuePlace | None = None, **given: Any) -> WorkflowStarted:
    fields = {"status": "ENQUEUED", "owner_token": None, "recovery_attempts": 0} | given
    return start(workflow_id, queue=queue or QueuePlace("q"), **fields)


def one(workflow_id: str, **given: Any) -> Enqueue:
    policy = {key: given.pop(key) for key in ("on_existing", "attach_to_holder") if key in given}
    return Enqueue(waiting(workflow_id, **given), **policy)


def deduplicated(workflow_id: str, deduplication_id: str = "d", **given: Any) -> Enqueue:
    return one(workflow_id, queue=QueuePlace("q", deduplication_id=deduplication_id), **given)


def stored_ids(read: Rows) -> list[str]:
    return [row["workflow_uuid"] for row in read("SELECT workflow_uuid FROM workflow_status ORDER BY workflow_uuid")]


def test_nothing_to_enqueue_writes_nothing(store: SqlStore, read: Rows) -> None:
    assert store.enqueue_workflows([]) == {}
    assert stored_ids(read) == []


def test_the_rows_are_those_of_single_enqueues(store: SqlStore, read: Rows) -> None:
    def records(suffix: str) -> list[WorkflowStarted]:
        return [
            waiting(f"plain-{suffix}", class_name=None, attributes=None),
            waiting(
                f"full-{suffix}",
                status="DELAYED",
                name=AWKWARD,
                class_name=AWKWARD,
                config_name=AWKWARD,
                inputs=AWKWARD,
                executor_id=AWKWARD,
                application_version=None,
                application_id=AWKWARD,
                application_name=AWKWARD,
                timeout_ms=LARGEST,
                deadline_ms=LARGEST,
                authenticated_user=AWKWARD,
                authenticated_roles='["a\\\\b"]',
                assumed_role=AWKWARD,
                attributes='{"a": "\\t\\\\ é"}',
                queue=QueuePlace(AWKWARD, 2**31 - 1, suffix, AWKWARD, LARGEST, AWKWARD),
            ),
        ]

    store.commit(records("single"))
    assert store.enqueue_workflows([Enqueue(record) for record in records("bulk")]) == {}
    # And by the statement that passes over what exists.
    assert store.enqueue_workflows([one("plain-bulk"), *(Enqueue(r) for r in records("slow"))]) == {}
    own = {"workflow_uuid", "creator_xid", "created_at", "updated_at", "deduplication_id"}
    for kind in ("plain", "full"):
        found = [
            read("SELECT * FROM workflow_status WHERE workflow_uuid = %s", f"{kind}-{suffix}")[0]
            for suffix in ("single", "bulk", "slow")
        ]
        first, *others = [{key: value for key, value in row.items() if key not in own} for row in found]
        assert others == [first, first]
        assert all(row["created_at"] == row["updated_at"] > 1_600_000_000_000 for row in found[1:])
        assert all(row["creator_xid"] == f"token-{row['workflow_uuid']}" for row in found)
    stored = read("SELECT inputs FROM workflow_input WHERE workflow_uuid LIKE 'full%%'".replace("%%", "%"))
    assert [row["inputs"] for row in stored] == [AWKWARD] * 3


def test_all_of_one_call_are_as_old_as_each_other_and_may_be_given_their_age(store: SqlStore, read: Rows) -> None:
    store.enqueue_workflows([one("a"), one("b"), one("c", created_at_ms=5)])
    first, second, third = column(read, "created_at", "a", "b", "c")
    assert first == second
    assert third == 5


def test_children_are_created_in_the_order_of_their_steps(store: SqlStore, read: Rows) -> None:
    store.commit([start("p")])
    records = [
        child(f"p-{i}", "p", i, status="ENQUEUED", owner_token=None, queue=QueuePlace("q")) for i in range(1, 121)
    ]
    assert store.enqueue_workflows([Enqueue(record) for record in records]) == {}
    ordered = read(
        "SELECT workflow_uuid FROM workflow_status WHERE queue_name = 'q' ORDER BY created_at, workflow_uuid"
    )
    assert [row["workflow_uuid"] for row in ordered] == [f"p-{i}" for i in range(1, 121)]
    times = column(read, "created_at", "p-1", "p-120")
    assert times[1] - times[0] == 2
    steps = read("SELECT function_id, function_name, child_workflow_id FROM operation_outputs ORDER BY function_id")
    assert [tuple(row.values()) for row in steps] == [(i, "checkout", f"p-{i}") for i in range(1, 121)]
    assert set(column(read, "parent_workflow_id", "p-1", "p-120")) == {"p"}


@pytest.mark.parametrize("lost_after", ["all", "half"])
def test_a_repeated_call_finds_its_own_rows(store: SqlStore, read: Rows, lost_after: str) -> None:
    store.commit([start("p")])
    enqueues = [
        deduplicated("a"),
        one("b", on_existing="reject"),
        Enqueue(child("p-1", "p", 1, status="ENQUEUED", owner_token=None, queue=QueuePlace("q")), "reject"),
    ]
    if lost_after == "half":
        # Somebody else's call in the meantime: only the own rows of the first two are there.
        store.enqueue_workflows(enqueues[:2])
    else:
        store.enqueue_workflows(enqueues)
    before = everything(read)
    assert store.enqueue_workflows(enqueues) == {}
    if lost_after == "all":
        assert everything(read) == before
    assert stored_ids(read) == ["a", "b", "p", "p-1"]


def test_an_existing_workflow_is_attached_to_and_not_changed(store: SqlStore, read: Rows) -> None:
    store.commit([start("a")])
    before = everything(read)
    answers = store.enqueue_workflows([one("b"), one("a", creator_token="other"), one("c")])
    assert answers == {1: ExistingWorkflow("PENDING", "checkout", None, None, None, "py_pickle")}
    assert stored_ids(read) == ["a", "b", "c"]
    assert set(before["workflow_input"]) < set(everything(read)["workflow_input"])


@pytest.mark.parametrize(
    ("name", "on_existing", "is_written"),
    [
        ("checkout", "attach", True),
        ("checkout", "skip", True),
        ("checkout", "reject", False),
        ("other", "attach", False),
        ("other", "skip", True),
    ],
)
def test_whether_an_id_in_use_refuses_the_call(
    store: SqlStore, read: Rows, name: str, on_existing: Any, is_written: bool
) -> None:
    store.commit([start("a")])
    before = everything(read)
    enqueue = one("a", creator_token="other", name=name, on_existing=on_existing)
    answers = store.enqueue_workflows([one("b"), enqueue, one("c")])
    assert isinstance(answers[1], ExistingWorkflow)
    assert (everything(read) == before) != is_written


def test_a_deduplication_id_that_is_held_refuses_the_call_or_gives_the_holder(store: SqlStore, read: Rows) -> None:
    store.enqueue_workflows([deduplicated("holder")])
    before = everything(read)
    assert store.enqueue_workflows([one("b"), deduplicated("a")]) == {1: DeduplicationTaken("holder")}
    assert everything(read) == before
    answers = store.enqueue_workflows([one("b"), deduplicated("a", attach_to_holder=True)])
    assert answers == {1: DeduplicationTaken("holder")}
    assert stored_ids(read) == ["b", "holder"]
    inputs = read("SELECT workflow_uuid FROM workflow_input ORDER BY workflow_uuid")
    assert [row["workflow_uuid"] for row in inputs] == ["b", "holder"]


def test_the_holder_becomes_the_child_of_the_step(store: SqlStore, read: Rows) -> None:
    store.commit([start("p")])
    store.enqueue_workflows([deduplicated("holder")])
    place = QueuePlace("q", deduplication_id="d")
    record = child("p-1", "p", 1, status="ENQUEUED", owner_token=None, queue=place)
    answers = store.enqueue_workflows([Enqueue(record, attach_to_holder=True)])
    assert answers == {0: DeduplicationTaken("holder")}
    (step,) = read("SELECT function_name, child_workflow_id FROM operation_outputs")
    assert tuple(step.values()) == ("checkout", "holder")


def test_items_of_one_call_meet_each_other_in_order(store: SqlStore, read: Rows) -> None:
    same_id = store.enqueue_workflows([one("z"), one("z", creator_token="other"), one("a")])
    assert list(same_id) == [1]
    # In the order of the call, although "b" comes before "x" in that of the ids.
    taken = store.enqueue_workflows([deduplicated("x"), deduplicated("b", attach_to_holder=True), one("c")])
    assert taken == {1: DeduplicationTaken("x")}
    refused = store.enqueue_workflows([deduplicated("y", "e"), deduplicated("d", "e"), one("f")])
    assert refused == {1: DeduplicationTaken("y")}
    assert stored_ids(read) == ["a", "c", "x", "z"]


def test_a_parent_that_is_not_owned_any_more_writes_nothing(store: SqlStore, read: Rows) -> None:
    store.commit([start("p")])
    before = everything(read)

    def children(token: str) -> list[Enqueue]:
        given: dict[str, Any] = {"status": "ENQUEUED", "owner_token": None, "queue": QueuePlace("q")}
        return [Enqueue(child(f"p-{i}", "p", i, parent_token=token, **given)) for i in (1, 2)]

    assert store.enqueue_workflows(children("token-of-another")) == {0: Verdict.FENCED}
    assert everything(read) == before
    assert store.enqueue_workflows([one("b"), *children("token-of-another")]) == {1: Verdict.FENCED}
    assert everything(read) == before
    assert store.enqueue_workflows(children("token-p")) == {}


def test_a_step_id_that_holds_something_else_writes_nothing(store: SqlStore, read: Rows) -> None:
    store.commit([start("p")])
    given: dict[str, Any] = {"status": "ENQUEUED", "owner_token": None, "queue": QueuePlace("q")}
    store.enqueue_workflows([Enqueue(child("other", "p", 2, **given))])
    before = everything(read)
    assert store.enqueue_workflows([Enqueue(child(f"p-{i}", "p", i, **given)) for i in (1, 2)]) == {1: Verdict.REPEATED}
    assert everything(read) == before


@pytest.mark.parametrize(
    "given",
    [
        {"inputs": "a\0b"},
        {"inputs": "a\ud800b"},
        {"queue": QueuePlace("q", partition_key="\0")},
    ],
)
@pytest.mark.parametrize("something_exists", [False, True])
def test_what_the_database_refuses_is_named(
    store: SqlStore, read: Rows, given: dict[str, Any], something_exists: bool
) -> None:
    if something_exists:
        store.enqueue_workflows([one("w07")])
    before = everything(read)
    enqueues = [one(f"w{i:02}") for i in range(20)]
    enqueues[13] = one("w13", **given)
    with pytest.raises(BulkRefused) as refused:
        store.enqueue_workflows(enqueues)
    assert refused.value.index == 13
    assert everything(read) == before


def test_more_than_one_statement_takes(store: SqlStore, read: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "CHUNK_RECORDS", 7)
    store.enqueue_workflows([one("w10")])
    answers = store.enqueue_workflows([one(f"w{i:02}", creator_token="t" if i == 10 else f"t{i}") for i in range(50)])
    assert list(answers) == [10]
    assert len(stored_ids(read)) == 50
    store.commit([start("p")])
    given: dict[str, Any] = {"status": "ENQUEUED", "owner_token": None, "queue": QueuePlace("q")}
    assert store.enqueue_workflows([Enqueue(child(f"p-{i}", "p", i, **given)) for i in range(1, 31)]) == {}
    assert len(read("SELECT * FROM operation_outputs")) == 30


def test_large_inputs_are_split_into_several_statements() -> None:
    enqueues = [one(f"w{i}", inputs="x" * (bulk.CHUNK_BYTES // 2)) for i in range(4)]
    assert [len(chunk) for chunk in bulk._chunks(enqueues)] == [1, 1, 1, 1]
    assert [len(chunk) for chunk in bulk._chunks([one(f"w{i}") for i in range(2_500)])] == [1_000, 1_000, 500]


def test_concurrent_calls_with_the_same_ids_write_each_of_them_once(
    open_another: OpenAnother, database_url: str
) -> None:
    many = [f"w{i:03}" for i in range(200)]
    written: list[int] = []

    def enqueue_all(own: SqlStore, token: str, order: list[str]) -> None:
        enqueues = [one(w, creator_token=f"{token}-{w}") for w in order]
        while True:
            try:
                written.append(len(order) - len(own.enqueue_workflows(enqueues)))
                return
            except StoreUnavailable:
                continue  # a deadlock between the two, which the database has resolved

    threads = [
        threading.Thread(target=enqueue_all, args=(open_another(), "a", many)),
        threading.Thread(target=enqueue_all, args=(open_another(), "b", many[::-1])),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(written) == 200
    found = rows(database_url, "SELECT workflow_uuid, creator_xid FROM workflow_status ORDER BY workflow_uuid")
    assert [row["workflow_uuid"] for row in found] == many
    assert len({row["creator_xid"][0] for row in found}) == 1


def test_the_newest_of_a_partition_that_waits_or_runs_is_found(store: SqlStore, read: Rows) -> None:
    def keyed(workflow_id: str, key: str | None, at: int, **given: Any) -> Enqueue:
        return one(workflow_id, queue=QueuePlace("q", partition_key=key), created_at_ms=at, **given)

    store.enqueue_workflows(
        [
            keyed("a1", "a", 10),
            keyed("a2", "a", 20),
            keyed("b1", "b", 30),
            keyed("b2", "b", 90),
            keyed("c", "c", 50),
            keyed("none", None, 99),
            one("elsewhere", queue=QueuePlace("other", partition_key="a"), created_at_ms=99),
        ]
    )
    read("UPDATE workflow_status SET status = 'SUCCESS' WHERE workflow_uuid IN ('b2', 'c')")
    read("UPDATE workflow_status SET status = 'PENDING' WHERE workflow_uuid = 'a2'")
    assert store.find_newest_waiting("q", ["a", "b", "c", "unknown"]) == {"a": 20, "b": 30}
    assert store.find_newest_waiting("q", []) == {}


def test_others_are_told_once_per_queue(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, list[str]]] = []
    transaction = {"postgres": PostgresTransaction, "sqlite": SqliteTransaction}[store.backend]
    monkeypatch.setattr(transaction, "announce", lambda self, what, names: told.append((what, names)))
    delayed = QueuePlace("delayed", delay_until_ms=LARGEST)
    store.enqueue_workflows(
        [one("a"), one("b"), one("c", queue=QueuePlace("p")), one("d", status="DELAYED", queue=delayed)]
    )
    assert told == [("queued", ["p", "q"])]
