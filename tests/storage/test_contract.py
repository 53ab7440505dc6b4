"""The store contract, everything but `commit` (see test_commits): reading, claiming, cancelling, versions."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from dbos.error import DBOSException
from dbos.records import Verdict
from dbos.storage.database import SqlStore
from dbos.types import INTERNAL_QUEUE_NAME, Claim, QueueConfig
from tests.storage.making import LARGEST, Rows, child, claim, column, enqueue, everything, finish, ids, start, step

UNOWNED_VERSION = """
INSERT INTO application_versions (version_id, version_name, version_timestamp, created_at) VALUES ('i', 'v1', 5, 4)
"""
STATUSES = ("PENDING", "ENQUEUED", "DELAYED", "SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED")


def start_in_every_status(store: SqlStore) -> list[str]:
    """One workflow per status, named like it."""
    store.commit([start(status, status=status) for status in STATUSES])
    return list(STATUSES)


# --- steps


def test_steps_are_loaded_per_workflow_in_order_and_by_windows(store: SqlStore) -> None:
    store.commit([start("a"), start("b"), start("c")])
    store.commit([step(w, i) for i in (5, 3, 1, 4, 2) for w in ("a", "b")])
    found = store.load_steps(["b", "c", "a", "unknown"], 1, 4)
    assert {w: [s.step_id for s in steps] for w, steps in found.items()} == {"a": [2, 3, 4], "b": [2, 3, 4]}
    assert found["b"][0].output == "output of b/2"
    assert [s.step_id for s in store.load_steps(["a"], 0, 2**31 - 1)["a"]] == [1, 2, 3, 4, 5]
    assert store.load_steps(["a"], 5, 9) == {}
    assert store.load_steps([], 0, 9) == {}


def test_more_ids_than_one_statement_takes_are_all_looked_up(store: SqlStore) -> None:
    many = [f"w{i:05}" for i in range(2_001)]
    store.commit([start(w) for w in many])
    store.commit([step(w, 1) for w in many])
    assert sorted(store.load_steps(many, 0, 1)) == many
    assert sorted(store.find_outcomes(many)) == many
    assert sorted(store.find_existing(many)) == many
    store.cancel_workflows(many, 1)
    assert sorted(store.find_cancelled(many)) == sorted(store.find_final(many)) == many
    store.resume_workflows(many, "q", 1)
    assert store.find_final(many) == []


def test_steps_are_listed_in_order_with_or_without_payloads(store: SqlStore) -> None:
    store.commit([start("w"), start("other")])
    store.commit([step("w", i, error=f"error {i}") for i in (3, 1, 2, 4)] + [step("other", 1)])
    every = store.list_steps("w", load_output=True, limit=None, offset=None)
    assert [(s.step_id, s.output, s.error) for s in every] == [
        (i, f"output of w/{i}", f"error {i}") for i in (1, 2, 3, 4)
    ]
    bare = store.list_steps("w", load_output=False, limit=None, offset=None)
    assert [(s.step_id, s.name, s.output, s.error, s.completed_at_ms) for s in bare] == [
        (i, "charge", None, None, 2_000 + i) for i in (1, 2, 3, 4)
    ]
    for load_output in (True, False):
        page = [s.step_id for s in store.list_steps("w", load_output=load_output, limit=2, offset=1)]
        assert page == [2, 3]
        assert store.list_steps("w", load_output=load_output, limit=0, offset=None) == []
        assert store.list_steps("w", load_output=load_output, limit=None, offset=4) == []
        assert store.list_steps("unknown", load_output=load_output, limit=None, offset=None) == []


# --- workflows


def test_outcomes_are_given_for_workflows_that_exist(store: SqlStore) -> None:
    store.commit([start("a"), start("b"), start("c")])
    store.commit([finish("a"), finish("b", status="ERROR", output=None, error="broken")])
    found = store.find_outcomes(["a", "b", "c", "unknown", "a"])
    assert {w: (o.status, o.output, o.error) for w, o in found.items()} == {
        "a": ("SUCCESS", "result of a", None),
        "b": ("ERROR", None, "broken"),
        "c": ("PENDING", None, None),
    }
    assert store.find_outcomes([]) == {}


def test_payloads_of_older_rows_are_read_from_the_status_table(store: SqlStore, read: Rows) -> None:
    """Before payloads had tables of their own they stood in workflow_status."""
    store.commit([start("w")])
    read("DELETE FROM workflow_input")
    read("UPDATE workflow_status SET inputs = 'old in', output = 'old out', error = 'old error', status = 'ENQUEUED'")
    row = store.get_workflow("w")
    assert row is not None
    assert (row.inputs, row.output, row.error) == ("old in", "old out", "old error")
    outcome = store.find_outcomes(["w"])["w"]
    assert (outcome.output, outcome.error) == ("old out", "old error")
    read("UPDATE workflow_status SET queue_name = %s", INTERNAL_QUEUE_NAME)
    assert [w.inputs for w in claim(store, "t")] == ["old in"]
    assert [w.inputs for w in store.find_claimed("t")] == ["old in"]


def test_final_cancelled_and_existing_ones_are_told_apart(store: SqlStore) -> None:
    every = [*start_in_every_status(store), "unknown"]
    assert sorted(store.find_final(every)) == ["CANCELLED", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "SUCCESS"]
    assert store.find_cancelled(every) == ["CANCELLED"]
    assert sorted(store.find_existing(every)) == sorted(STATUSES)
    for find in (store.find_final, store.find_cancelled, store.find_existing, store.find_children):
        assert find([]) == []
        assert find(["unknown"]) == []


def test_an_unknown_workflow_is_none(store: SqlStore) -> None:
    assert store.get_workflow("unknown") is None


def test_children_are_the_direct_ones(store: SqlStore) -> None:
    store.commit([start("p"), start("q")])
    store.commit([child("p1", "p", 1), child("p2", "p", 2), child("q1", "q", 1)])
    store.commit([child("p1a", "p1", 1)])
    assert sorted(store.find_children(["p"])) == ["p1", "p2"]
    assert sorted(store.find_children(["p", "q", "unknown"])) == ["p1", "p2", "q1"]
    assert store.find_children(["p1a"]) == []


# --- recovery


def test_requeueing_takes_pending_workflows_of_one_executor_version_and_application(
    store: SqlStore, read: Rows
) -> None:
    """03 R108, R109, R110."""
    store.commit(
        [
            start("mine"),
            start("mine too", application_name=None),
            start("queued once"),
            start("other executor", executor_id="other"),
            start("other version", application_version="v2"),
            start("no version", application_version=None),
            start("other application", application_name="other-app"),
            start("waiting", status="ENQUEUED"),
            start("delayed", status="DELAYED"),
            start("done", status="SUCCESS"),
        ]
    )
    read("UPDATE workflow_status SET queue_name = 'mail' WHERE workflow_uuid = 'queued once'")
    read("UPDATE workflow_status SET started_at_epoch_ms = 7")
    taken = ["mine", "mine too", "queued once"]
    assert sorted(store.requeue_pending("test", "v1", "test-app")) == taken
    assert column(read, "status", *taken) == ["ENQUEUED"] * 3
    assert column(read, "queue_name", *taken) == [INTERNAL_QUEUE_NAME, INTERNAL_QUEUE_NAME, "mail"]
    assert column(read, "owner_xid", *taken) == column(read, "started_at_epoch_ms", *taken) == [None] * 3
    assert column(read, "recovery_attempts", *taken) == [1, 1, 1]
    assert column(read, "status", "other executor", "done", "delayed") == ["PENDING", "SUCCESS", "DELAYED"]
    before = everything(read)
    assert store.requeue_pending("test", "v1", "test-app") == []
    assert everything(read) == before


# --- claims


def test_claims_go_by_priority_then_age_then_id(store: SqlStore, read: Rows) -> None:
    """03 R72."""
    enqueue(store, read, "d", priority=2, created_at=100)
    enqueue(store, read, "c", priority=1, created_at=300)
    enqueue(store, read, "b2", "b1", "b3", priority=1, created_at=200)
    enqueue(store, read, "a", priority=0, created_at=900)
    assert ids(claim(store, "t1", limit=3)) == ["a", "b1", "b2"]
    assert ids(claim(store, "t2", limit=1)) == ["b3"]
    assert ids(claim(store, "t3", limit=0)) == []
    assert ids(claim(store, "t4", limit=9)) == ["c", "d"]
    assert ids(claim(store, "t5", limit=9)) == []


@pytest.mark.parametrize("partitioned", [False, True])
def test_nothing_is_claimed_by_limits_that_have_been_changed(store: SqlStore, read: Rows, partitioned: bool) -> None:
    """A claim may have waited for the lock while the limits were changed and work was enqueued under the new ones."""
    enqueue(store, read, "w", queue_name="mail")
    if partitioned:
        read("UPDATE workflow_status SET queue_partition_key = 'k'")
    limits = {"partition_concurrency": 1} if partitioned else {}
    known = store.register_queue(QueueConfig("mail", "test-app", **limits), 1, overwrite=True)
    assert store.update_queue(dataclasses.replace(known, global_concurrency=0), 1)
    request = Claim("t", "claimer", "v1", "test-app", False, 100, None)
    assert store.claim_workflows(known, request, 1_000_000) == []
    assert store.update_queue(dataclasses.replace(known, updated_at_ms=known.updated_at_ms + 1), 1)
    changed = store.find_queue("mail")
    assert changed is not None
    assert ids(store.claim_workflows(changed, request, 1_000_000)) == ["w"]


def test_what_never_had_a_queue_has_none_from_its_claim_on(store: SqlStore, read: Rows) -> None:
    enqueue(store, read, "w", "held")
    read("UPDATE workflow_status SET deduplication_id = 'd' WHERE workflow_uuid = 'held'")
    assert [workflow.queue_name for workflow in claim(store, "t")] == [INTERNAL_QUEUE_NAME] * 2
    # The claimer counts it as work of the internal queue, also when the answer was lost.
    assert {workflow.queue_name for workflow in store.find_claimed("t")} == {INTERNAL_QUEUE_NAME}
    # A deduplication id is held on a queue, so this one keeps it until it ends.
    assert column(read, "queue_name", "w", "held") == [None, INTERNAL_QUEUE_NAME]
    assert sorted(store.requeue_pending("claimer", "v1", "test-app")) == ["held", "w"]
    assert column(read, "queue_name", "w", "held") == [INTERNAL_QUEUE_NAME] * 2


@pytest.mark.parametrize("how", ["cancelled", "overdue", "given up"])
def test_a_resume_goes_back_to_the_queue_however_often_it_is_repeated(store: SqlStore, read: Rows, how: str) -> None:
    enqueue(store, read, "w", queue_name='q "1"')
    enqueue(store, read, "none")
    for name in ('q "1"', INTERNAL_QUEUE_NAME):
        claim(store, "t", queue_name=name)
    if how == "cancelled":
        store.cancel_workflows(["w", "none"], 1)
        store.cancel_workflows(["w", "none"], 1)
    elif how == "overdue":
        read("UPDATE workflow_status SET workflow_deadline_epoch_ms = 1")
        assert sorted(store.cancel_overdue("test-app", 2)) == ["none", "w"]
    else:
        store.dead_letter("w", "t", 1)
        store.dead_letter("none", "t", 1)
    assert column(read, "queue_name", "w", "none") == [None, None]
    for _ in range(2):
        assert store.resume_workflows(["w", "none"], None, 1).queues == [INTERNAL_QUEUE_NAME, 'q "1"']
        assert column(read, "queue_name", "w", "none") == ['q "1"', INTERNAL_QUEUE_NAME]
    assert store.resume_workflows(["w"], "other", 1).queues == ["other"]
    store.cancel_workflows(["w"], 1)
    assert store.resume_workflows(["w"], None, 1).queues == ["other"]
    assert store.resume_workflows([], None, 1).queues == []


def test_a_claim_gives_all_that_running_the_workflow_needs(store: SqlStore, read: Rows) -> None:
    given: dict[str, Any] = {
        "class_name": "Shop",
        "config_name": "main",
        "authenticated_user": "alice",
        "authenticated_roles": '["admin", "clerk"]',
        "attributes": '{"city": "Köln"}',
        "deadline_ms": 7_000_000,
        "recovery_attempts": 4,
    }
    enqueue(store, read, "w", **given)
    enqueue(store, read, "bare", name="plain", attributes="null", created_at=600)
    first, second = claim(store, "t")
    assert (first.workflow_id, first.status, first.name) == ("w", "PENDING", "checkout")
    assert (first.class_name, first.config_name, first.owner_token) == ("Shop", "main", "t")
    assert (first.inputs, first.serialization, first.recovery_attempts) == ("inputs of w", "py_pickle", 5)
    assert (first.deadline_ms, first.authenticated_user) == (7_000_000, "alice")
    assert (first.authenticated_roles, first.attributes) == (["admin", "clerk"], {"city": "Köln"})
    assert first.queue_name == INTERNAL_QUEUE_NAME
    assert (second.name, second.authenticated_roles, second.attributes, second.deadline_ms) == (
        "plain",
        None,
        None,
        None,
    )
    row = store.get_workflow("w")
    assert row is not None
    assert (row.status, row.executor_id, row.application_version, row.recovery_attempts) == (
        "PENDING",
        "claimer",
        "v1",
        5,
    )
    assert row.started_at_ms is not None
    # And it owns the workflow now.
    assert store.commit([step("w", 1, owner_token="t"), step("w", 2)]) == [Verdict.APPLIED, Verdict.FENCED]


def test_a_claim_takes_only_what_this_application_and_version_may_run(store: SqlStore, read: Rows) -> None:
    """03 R71."""
    enqueue(store, read, "a-mine")
    enqueue(store, read, "b-other version", application_version="v2")
    enqueue(store, read, "c-no version", application_version=None)
    enqueue(store, read, "d-other application", application_name="other-app")
    enqueue(store, read, "e-no application", application_name=None)
    enqueue(store, read, "f-other queue", queue_name="mail")
    for status in ("PENDING", "DELAYED", "SUCCESS", "CANCELLED"):
        enqueue(store, read, status, status=status)
    assert ids(claim(store, "t1")) == ["a-mine", "e-no application"]
    assert ids(claim(store, "t2", is_latest=True)) == ["c-no version"]
    assert column(read, "application_version", "c-no version") == ["v1"]
    assert column(read, "application_name", "e-no application") == ["test-app"]
    assert ids(claim(store, "t3", queue_name="mail")) == ["f-other queue"]
    assert ids(claim(store, "t4", application_version="v2", is_latest=True)) == ["b-other version"]
    assert ids(claim(store, "t5", application_name="other-app")) == ["d-other application"]


def test_what_has_no_version_is_claimed_by_the_latest_one_at_that_moment(store: SqlStore, read: Rows) -> None:
    """03 R41, R71: also when the claimer has not heard yet that it is the latest no more."""
    enqueue(store, read, "w", application_version=None)
    for number, version in enumerate(("v1", "v2")):
        store.register_version(version, "test-app", number)
        store.promote_version(version, "test-app", 10**13 + number)
    store.register_version("v9", "other-app", 2)
    store.promote_version("v9", "other-app", 10**15)
    assert ids(claim(store, "t1", is_latest=True)) == []
    assert ids(claim(store, "t2", application_version="v2", is_latest=True)) == ["w"]
    enqueue(store, read, "x", application_version=None)
    store.promote_version("v1", "test-app", 10**14)
    assert ids(claim(store, "t3", application_version="v2", is_latest=True)) == []
    assert ids(claim(store, "t4", is_latest=True)) == ["x"]


def test_a_timeout_becomes_a_deadline_when_the_workflow_is_claimed(store: SqlStore, read: Rows) -> None:
    """03 R92."""
    enqueue(store, read, "a-none")
    enqueue(store, read, "b-timeout", timeout_ms=5_000)
    enqueue(store, read, "c-both", timeout_ms=5_000, deadline_ms=77)
    enqueue(store, read, "d-largest", timeout_ms=LARGEST)
    enqueue(store, read, "e-just fits", timeout_ms=LARGEST - 1_000_000)
    enqueue(store, read, "f-just not", timeout_ms=LARGEST - 999_999)
    claimed = claim(store, "t", now_ms=1_000_000)
    expected = [None, 1_005_000, 77, LARGEST, LARGEST, LARGEST]
    assert [w.deadline_ms for w in claimed] == expected
    assert column(read, "workflow_deadline_epoch_ms", *ids(claimed)) == expected
    assert store.get_workflow("b-timeout").timeout_ms == 5_000  # type: ignore[union-attr]


def test_a_lost_answer_to_a_claim_is_found_by_its_token(store: SqlStore, read: Rows) -> None:
    """03 R95: and only what is still to be run."""
    enqueue(store, read, "w3", "w1", "w2")
    enqueue(store, read, "first", priority=-1)
    claimed = claim(store, "t", limit=3)
    assert store.find_claimed("t") == claimed
    assert ids(claimed) == ["first", "w1", "w2"]
    assert store.find_claimed("other") == []
    store.commit([finish("w1", owner_token="t")])
    store.cancel_workflows(["first"], 1)
    assert ids(store.find_claimed("t")) == ["w2"]


def test_a_workflow_is_given_up_only_by_its_owner(store: SqlStore, read: Rows) -> None:
    """03 R62, R96."""
    enqueue(store, read, "w")
    claim(store, "t")
    before = everything(read)
    store.dead_letter("w", "older claim", 1)
    store.dead_letter("unknown", "t", 1)
    assert everything(read) == before
    store.dead_letter("w", "t", 1)
    row = store.get_workflow("w")
    assert row is not None
    assert (row.status, row.queue_name) == ("MAX_RECOVERY_ATTEMPTS_EXCEEDED", None)
    assert row.completed_at is not None
    assert column(read, "owner_xid", "w") == [None]
    before = everything(read)
    store.dead_letter("w", "t", 2)
    assert everything(read) == before


def test_waiting_work_of_other_versions_is_counted(store: SqlStore) -> None:
    store.commit(
        [
            start("a", application_version="v0"),
            start("b", application_version="v0"),
            start("c", application_version="v0", status="ENQUEUED", executor_id=None),
            start("d", application_version="v0", application_name=None),
            start("elsewhere", application_version="v0", executor_id="other"),
            start("mine"),
            start("no version", application_version=None),
            start("done", application_version="v0", status="SUCCESS"),
            start("other application", application_version="v0", application_name="other-app"),
        ]
    )
    found = store.count_waiting_elsewhere("test-app", "v1", "test")
    assert sorted(found) == [("v0", "ENQUEUED", 1), ("v0", "PENDING", 3)]
    assert store.count_waiting_elsewhere("third-app", "v0", "test") == []


# --- cancelling and resuming


def test_cancelling_takes_all_that_have_neither_succeeded_nor_failed(store: SqlStore, read: Rows) -> None:
    """03 R52, R62."""
    every = start_in_every_status(store)
    read("UPDATE workflow_status SET queue_name = 'q', deduplication_id = workflow_uuid, started_at_epoch_ms = 7")
    store.cancel_workflows([*every, "unknown"], 1)
    taken = [status for status in every if status not in ("SUCCESS", "ERROR")]
    assert column(read, "status", *every) == [s if s in ("SUCCESS", "ERROR") else "CANCELLED" for s in every]
    for cleared in ("owner_xid", "queue_name", "deduplication_id", "started_at_epoch_ms"):
        assert column(read, cleared, *taken) == [None] * len(taken)
        assert None not in column(read, cleared, "SUCCESS", "ERROR")
    assert None not in column(read, "completed_at", *taken)
    statuses = column(read, "status", *every)
    store.cancel_workflows([*every, "unknown"], 2)
    assert column(read, "status", *every) == statuses
    store.cancel_workflows([], 3)


def test_overdue_workflows_are_cancelled(store: SqlStore, read: Rows) -> None:
    """03 R100."""
    due = {"deadline_ms": 1_000}
    store.commit([start(f"due {s}", status=s, **due) for s in STATUSES])
    store.commit(
        [
            start("due unowned", application_name=None, **due),
            start("due other", application_name="other-app", **due),
            start("later", deadline_ms=1_001),
            start("never"),
        ]
    )
    taken = ["due DELAYED", "due ENQUEUED", "due PENDING", "due unowned"]
    assert store.cancel_overdue("test-app", 999) == []
    assert sorted(store.cancel_overdue("test-app", 1_000)) == taken
    assert store.cancel_overdue("test-app", 1_000) == []
    assert column(read, "status", *taken) == ["CANCELLED"] * 4
    assert column(read, "owner_xid", *taken) == [None] * 4
    assert column(read, "status", "due SUCCESS", "due other", "later", "never") == ["SUCCESS", *["PENDING"] * 3]


def test_a_thousand_overdue_workflows_are_cancelled_at_a_time_earliest_first(store: SqlStore) -> None:
    """03 R100."""
    many = [f"w{i:04}" for i in range(1_500)]
    store.commit([start(w, deadline_ms=10_000 - i) for i, w in enumerate(many)])
    assert sorted(store.cancel_overdue("test-app", 20_000)) == many[500:]
    assert sorted(store.cancel_overdue("test-app", 20_000)) == many[:500]
    assert store.cancel_overdue("test-app", 20_000) == []


def test_resuming_puts_all_that_have_neither_succeeded_nor_failed_on_a_queue(store: SqlStore, read: Rows) -> None:
    every = start_in_every_status(store)
    read(
        "UPDATE workflow_status SET deduplication_id = workflow_uuid, workflow_deadline_epoch_ms = 7, completed_at = 7"
    )
    read("UPDATE workflow_status SET recovery_attempts = 50, started_at_epoch_ms = 7, workflow_timeout_ms = 5000")
    taken = [status for status in every if status not in ("SUCCESS", "ERROR")]
    for _ in range(2):
        store.resume_workflows(every, "mail", 1)
        assert column(read, "status", *taken) == ["ENQUEUED"] * len(taken)
        assert column(read, "queue_name", *taken) == ["mail"] * len(taken)
        assert column(read, "recovery_attempts", *taken) == [0] * len(taken)
        assert column(read, "workflow_timeout_ms", *taken) == [5_000] * len(taken)
        for cleared in (
            "owner_xid",
            "deduplication_id",
            "started_at_epoch_ms",
            "workflow_deadline_epoch_ms",
            "completed_at",
        ):
            assert column(read, cleared, *taken) == [None] * len(taken)
        assert column(read, "status", "SUCCESS", "ERROR") == ["SUCCESS", "ERROR"]
        assert column(read, "queue_name", "SUCCESS", "ERROR") == [None, None]
    claimed = claim(store, "t", queue_name="mail")
    assert sorted(ids(claimed)) == sorted(taken)
    assert {w.deadline_ms for w in claimed} == {1_005_000}


# --- versions


def test_a_version_is_registered_once(store: SqlStore, read: Rows) -> None:
    store.register_version("v1", "test-app", 1_000)
    (first,) = store.list_versions("test-app")
    assert (first["version_name"], first["application_name"]) == ("v1", "test-app")
    assert first["version_timestamp"] == first["created_at"]
    store.register_version("v1", "test-app", 2_000)
    assert store.list_versions("test-app") == [first]


def test_an_unowned_version_is_claimed_and_keeps_its_times(store: SqlStore, read: Rows) -> None:
    read(UNOWNED_VERSION)
    assert [v["application_name"] for v in store.list_versions("test-app")] == [None]
    assert [v["application_name"] for v in store.list_versions("other-app")] == [None]
    store.register_version("v1", "test-app", 1_000)
    (version,) = store.list_versions("test-app")
    assert version == {
        "version_id": "i",
        "version_name": "v1",
        "version_timestamp": 5,
        "created_at": 4,
        "application_name": "test-app",
    }
    assert store.list_versions("other-app") == []


def test_a_version_of_another_application_is_refused(store: SqlStore, read: Rows) -> None:
    store.register_version("v1", "other-app", 1_000)
    before = read("SELECT * FROM application_versions")
    with pytest.raises(DBOSException, match=r"'v1'.*'other-app'.*'test-app'"):
        store.register_version("v1", "test-app", 2_000)
    with pytest.raises(DBOSException, match=r"'v1'.*'other-app'"):
        store.promote_version("v1", "test-app", 2_000)
    assert read("SELECT * FROM application_versions") == before
    assert store.list_versions("test-app") == []


def test_the_version_promoted_last_is_the_latest(store: SqlStore) -> None:
    for i, name in enumerate(["v1", "v2", "v3"]):
        store.register_version(name, "test-app", 1_000 + i)
    far = 4_000_000_000_000
    assert store.promote_version("v2", "test-app", far)
    assert store.promote_version("v1", "test-app", far + 1)
    assert [v["version_name"] for v in store.list_versions("test-app")] == ["v1", "v2", "v3"]
    assert [v["version_name"] for v in store.list_versions("test-app", 1)] == ["v1"]
    assert store.promote_version("v3", None, far + 2)
    assert store.list_versions("test-app", 1)[0]["version_timestamp"] == far + 2
    assert not store.promote_version("unknown", "test-app", 1)
    assert not store.promote_version("unknown", None, 1)
    assert len(store.list_versions("test-app")) == 3


def test_promoting_claims_an_unowned_version(store: SqlStore, read: Rows) -> None:
    """05 R101."""
    read(UNOWNED_VERSION)
    assert store.promote_version("v1", None, 6)
    assert [v["application_name"] for v in store.list_versions("test-app")] == [None]
    assert store.promote_version("v1", "test-app", 7)
    assert [(v["application_name"], v["version_timestamp"]) for v in store.list_versions("test-app")] == [
        ("test-app", 7)
    ]
