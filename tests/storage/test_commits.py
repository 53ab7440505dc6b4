"""The store contract, `commit`: every record its own answer, all of a batch or nothing, repeatable."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from dbos.records import Answer, ExistingWorkflow, Record, Verdict
from dbos.storage.database import SqlStore
from dbos.storage.store import StoreRefused
from dbos.types import WorkflowOutcome
from tests.storage.making import LARGEST, Rows, child, claim, column, everything, finish, start, step

APPLIED, FENCED, REPEATED = Verdict.APPLIED, Verdict.FENCED, Verdict.REPEATED

TEXTS = {
    "quotes": "'single' \"double\" `back` $$dollar$$ $1 ?1 %s {schema}",
    "backslashes": r"\ \\ \n \u0041 \u0000 \\u0000 \' \" \0 %5C",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "emoji": "👩‍👩‍👧‍👦 🏴‍☠️ 🇩🇪 \U0010ffff",
    "separators": "a\u2028b\u2029c\u0085d\ufeffe\u200bf\r\ng",
    "scripts": "Ünïcödé 日本語 العربية עברית ไทย ə́",
    "combining": "e\u0301 \u00e9 \ufb01",
    "noncharacters": "\ufffe\uffff\ufffd",
    "json": '{"w": "\\u0000", "in": [null]}',
    "spaces": "  leading and trailing  \t",
    "empty": "",
}


def answers_are_repeatable(store: SqlStore, read: Rows, records: Sequence[Record]) -> list[Answer]:
    """Commit a batch; then once more, as after a lost answer: same answers, no row changed."""
    answers = store.commit(records)
    before = everything(read)
    assert store.commit(records) == answers
    assert everything(read) == before
    return answers


# --- starts


def test_a_start_writes_status_and_inputs(store: SqlStore, read: Rows) -> None:
    record = start(
        "w",
        class_name="Shop",
        config_name="main",
        application_id="app-id",
        recovery_attempts=3,
        timeout_ms=5_000,
        deadline_ms=1_700_000_000_000,
        authenticated_user="alice",
        authenticated_roles='["admin"]',
        assumed_role="admin",
        attributes='{"city": "Köln"}',
    )
    assert answers_are_repeatable(store, read, [record]) == [APPLIED]
    row = store.get_workflow("w")
    assert row is not None
    assert (row.status, row.name, row.class_name, row.config_name) == ("PENDING", "checkout", "Shop", "main")
    assert (row.inputs, row.output, row.error, row.serialization) == ("inputs of w", None, None, "py_pickle")
    assert (row.executor_id, row.application_version, row.application_id) == ("test", "v1", "app-id")
    assert (row.application_name, row.recovery_attempts, row.priority) == ("test-app", 3, 0)
    assert (row.timeout_ms, row.deadline_ms) == (5_000, 1_700_000_000_000)
    assert (row.authenticated_user, row.authenticated_roles, row.assumed_role) == ("alice", '["admin"]', "admin")
    assert row.attributes == '{"city": "Köln"}'
    assert row.queue_name is None
    assert row.parent_workflow_id is None
    assert row.created_at == row.updated_at > 1_600_000_000_000
    assert row.completed_at is None


@pytest.mark.parametrize("status", ["PENDING", "SUCCESS", "CANCELLED"])
def test_a_start_that_meets_another_one_learns_what_is_there_and_changes_nothing(
    store: SqlStore, read: Rows, status: str
) -> None:
    store.commit([start("w", name="older", class_name="C", config_name="g", serialization="portable_json")])
    if status == "SUCCESS":
        store.commit([finish("w")])
    elif status == "CANCELLED":
        store.cancel_workflows(["w"], 1)
    before = everything(read)
    met = ExistingWorkflow(status, "older", "C", "g", None, "portable_json")
    assert answers_are_repeatable(store, read, [start("w", creator_token="other")]) == [met]
    assert everything(read) == before


def test_two_starts_of_one_id_in_a_batch_are_one_workflow(store: SqlStore, read: Rows) -> None:
    records = [start("w", inputs="first"), start("other"), start("w", inputs="second", creator_token="second")]
    answers = answers_are_repeatable(store, read, records)
    met = ExistingWorkflow("PENDING", "checkout", None, None, None, "py_pickle")
    assert answers == [APPLIED, APPLIED, met]
    row = store.get_workflow("w")
    assert row is not None
    assert row.inputs == "first"


def test_a_start_that_was_repeated_after_the_workflow_ended_is_still_applied(store: SqlStore, read: Rows) -> None:
    store.commit([start("w")])
    store.commit([finish("w")])
    assert answers_are_repeatable(store, read, [start("w")]) == [APPLIED]
    assert column(read, "status", "w") == ["SUCCESS"]


# --- steps


def test_a_step_is_recorded_as_given(store: SqlStore, read: Rows) -> None:
    store.commit([start("w")])
    good = step("w", 1, child_workflow_id="elsewhere", error=None)
    bad = step("w", 2, output=None, error="broken", serialization=None, application_name=None)
    assert answers_are_repeatable(store, read, [good, bad]) == [APPLIED, APPLIED]
    assert answers_are_repeatable(store, read, [step("w", 3)]) == [APPLIED]
    first, second, third = store.list_steps("w", load_output=True, limit=None, offset=None)
    assert (first.step_id, first.name, first.output, first.error) == (1, "charge", "output of w/1", None)
    assert (first.serialization, first.child_workflow_id) == ("py_pickle", "elsewhere")
    assert (first.started_at_ms, first.completed_at_ms) == (1_001, 2_001)
    assert (second.output, second.error, second.serialization) == (None, "broken", None)
    assert (third.output, third.child_workflow_id) == ("output of w/3", None)
    found = read("SELECT application_name FROM operation_outputs ORDER BY function_id")
    assert [row["application_name"] for row in found] == ["test-app", None, "test-app"]


def test_a_step_id_holds_one_record(store: SqlStore, read: Rows) -> None:
    store.commit([start("w")])
    store.commit([step("w", 1)])
    late = step("w", 1, output="another", completed_at_ms=9_999)
    assert answers_are_repeatable(store, read, [late]) == [REPEATED]
    assert answers_are_repeatable(store, read, [late, step("w", 2)]) == [REPEATED, APPLIED]
    assert store.load_steps(["w"], 0, 1)["w"][0].output == "output of w/1"


def test_of_two_steps_of_one_id_in_a_batch_one_is_written(store: SqlStore, read: Rows) -> None:
    store.commit([start("w")])
    records = [step("w", 1), step("w", 1, output="another", completed_at_ms=9_999)]
    answers = answers_are_repeatable(store, read, records)
    assert sorted(answers, key=str) == [APPLIED, REPEATED]
    kept = store.load_steps(["w"], 0, 9)["w"]
    assert [kept[0].output] == [records[answers.index(APPLIED)].output]


def test_a_row_that_is_information_only_leaves_an_older_one_as_it_is(store: SqlStore, read: Rows) -> None:
    store.commit([start("w")])
    store.commit([step("w", 1)])
    again = step("w", 1, output="another", completed_at_ms=9_999, keep_existing=True)
    assert answers_are_repeatable(store, read, [again]) == [APPLIED]
    assert store.load_steps(["w"], 0, 9)["w"][0].output == "output of w/1"
    fresh = step("w", 2, keep_existing=True)
    assert answers_are_repeatable(store, read, [fresh, again]) == [APPLIED, APPLIED]
    fenced = step("w", 1, owner_token="lost", keep_existing=True)
    assert answers_are_repeatable(store, read, [fenced]) == [FENCED]


def test_steps_of_an_execution_that_lost_its_workflow_are_fenced(store: SqlStore, read: Rows) -> None:
    store.commit([start(w) for w in ("mine", "cancelled", "finished", "requeued", "claimed")])
    store.commit([step("cancelled", 1)])
    store.cancel_workflows(["cancelled"], 1)
    store.commit([finish("finished")])
    store.resume_workflows(["requeued", "claimed"], "_dbos_internal_queue", 1)
    read("UPDATE workflow_status SET priority = 9 WHERE workflow_uuid = 'requeued'")
    assert [w.workflow_id for w in claim(store, "new owner", limit=1)] == ["claimed"]
    lost = ["cancelled", "finished", "requeued", "claimed", "unknown"]
    records: list[Record] = [step(w, 1) for w in lost]
    records.insert(2, step("mine", 1))
    answers = answers_are_repeatable(store, read, records)
    assert answers == [FENCED, FENCED, APPLIED, FENCED, FENCED, FENCED]
    assert answers_are_repeatable(store, read, [step("cancelled", 2)]) == [FENCED]
    assert sorted(store.load_steps([*lost, "mine"], 0, 9)) == ["cancelled", "mine"]


# --- finishes


@pytest.mark.parametrize("outcome", [("SUCCESS", "fine", None), ("ERROR", None, "broken"), ("SUCCESS", None, None)])
def test_a_finish_writes_the_outcome(store: SqlStore, read: Rows, outcome: tuple[str, str | None, str | None]) -> None:
    status, output, error = outcome
    store.commit([start("w"), start("v")])
    read("UPDATE workflow_status SET deduplication_id = 'd', queue_name = 'q' WHERE workflow_uuid = 'w'")
    record = finish("w", status=status, output=output, error=error)
    assert answers_are_repeatable(store, read, [record]) == [APPLIED]
    assert answers_are_repeatable(store, read, [record, finish("v")]) == [APPLIED, APPLIED]
    found = store.find_outcomes(["w"])["w"]
    assert (found.status, found.output, found.error, found.serialization) == (status, output, error, "py_pickle")
    row = store.get_workflow("w")
    assert row is not None
    assert row.completed_at == row.updated_at >= row.created_at
    assert (row.deduplication_id, row.queue_name) == (None, "q")
    assert column(read, "owner_xid", "w", "v") == [None, None]


def test_a_finish_of_an_execution_that_lost_its_workflow_is_fenced(store: SqlStore, read: Rows) -> None:
    store.commit([start(w) for w in ("mine", "cancelled", "finished", "requeued")])
    store.cancel_workflows(["cancelled"], 1)
    store.commit([finish("finished", output="first")])
    store.resume_workflows(["requeued"], "_dbos_internal_queue", 1)
    lost = ["cancelled", "finished", "requeued", "unknown"]
    records: list[Record] = [finish(w) for w in lost]
    records.insert(1, finish("mine"))
    assert answers_are_repeatable(store, read, records) == [FENCED, APPLIED, FENCED, FENCED, FENCED]
    assert answers_are_repeatable(store, read, [finish("cancelled")]) == [FENCED]
    assert column(read, "status", *lost[:3]) == ["CANCELLED", "SUCCESS", "ENQUEUED"]
    outcomes = store.find_outcomes(lost)
    assert [outcomes[w].output for w in lost[:3]] == [None, "first", None]


def test_a_refusal_writes_the_outcome_in_a_format_of_its_own(store: SqlStore, read: Rows) -> None:
    """04 R630, section 12, 10: status, format and error in one transaction, once, and only by the owner."""
    store.commit([start(w, serialization="js_superjson") for w in ("mine", "lost")])
    store.cancel_workflows(["lost"], 1)
    for workflow_id in ("mine", "lost", "unknown"):
        refusal = finish(workflow_id, status="ERROR", output=None, error="{}", serialization="portable_json")
        for _ in range(2):
            store.refuse_workflow(refusal, 5)
    found = store.find_outcomes(["mine", "lost"])
    assert found["mine"] == WorkflowOutcome("mine", "ERROR", None, "{}", "portable_json")
    assert found["lost"] == WorkflowOutcome("lost", "CANCELLED", None, None, "js_superjson")
    assert column(read, "owner_xid", "mine", "lost") == [None, None]
    row = store.get_workflow("mine")
    assert row is not None
    assert row.inputs == "inputs of mine"


def test_of_two_finishes_of_one_workflow_in_a_batch_one_is_written(store: SqlStore, read: Rows) -> None:
    store.commit([start("w"), start("v")])
    records = [finish("w"), finish("v"), finish("w", status="ERROR", output=None, error="broken")]
    answers = answers_are_repeatable(store, read, records)
    assert answers == [APPLIED, APPLIED, FENCED]
    found = store.find_outcomes(["w"])["w"]
    assert (found.status, found.output, found.error) == ("SUCCESS", "result of w", None)


def test_the_outcome_replaces_one_left_by_an_older_execution(store: SqlStore, read: Rows) -> None:
    """A resumed workflow may have left an output row behind, for example from another implementation."""
    store.commit([start("w"), start("v")])
    for workflow_id in ("w", "v"):
        read(
            "INSERT INTO workflow_output (workflow_uuid, output, retention_timestamp) VALUES (%s, 'old', 1)",
            workflow_id,
        )
    assert answers_are_repeatable(store, read, [finish("w")]) == [APPLIED]
    assert answers_are_repeatable(store, read, [finish("v"), finish("w")]) == [APPLIED, APPLIED]
    assert {o.output for o in store.find_outcomes(["w", "v"]).values()} == {"result of w", "result of v"}


# --- children


def test_a_child_is_created_together_with_its_parents_step(store: SqlStore, read: Rows) -> None:
    store.commit([start("p")])
    assert answers_are_repeatable(store, read, [child("c", "p", 3, name="pay")]) == [APPLIED]
    row = store.get_workflow("c")
    assert row is not None
    assert (row.parent_workflow_id, row.inputs, row.status) == ("p", "inputs of c", "PENDING")
    (recorded,) = store.list_steps("p", load_output=True, limit=None, offset=None)
    assert (recorded.step_id, recorded.name, recorded.child_workflow_id) == (3, "pay", "c")
    assert (recorded.started_at_ms, recorded.completed_at_ms, recorded.output) == (100, 200, None)
    assert store.find_children(["p", "c"]) == ["c"]


def test_children_of_the_same_and_of_several_parents_travel_in_one_batch(store: SqlStore, read: Rows) -> None:
    store.commit([start(f"p{i}") for i in range(10)])
    records = [child(f"p{i}-c{j}", f"p{i}", j) for j in range(1, 4) for i in range(10)]
    assert answers_are_repeatable(store, read, records) == [APPLIED] * 30
    assert sorted(store.find_children([f"p{i}" for i in range(10)])) == sorted(r.workflow_id for r in records)
    steps = store.load_steps(["p7"], 0, 9)["p7"]
    assert [(s.step_id, s.child_workflow_id) for s in steps] == [(1, "p7-c1"), (2, "p7-c2"), (3, "p7-c3")]


def test_a_child_start_attaches_to_a_workflow_of_the_same_function(store: SqlStore, read: Rows) -> None:
    store.commit([start("p"), start("c")])
    met = ExistingWorkflow("PENDING", "checkout", None, None, None, "py_pickle")
    records: list[Record] = [child("c", "p", 1, creator_token="new"), child("d", "p", 2)]
    assert answers_are_repeatable(store, read, records) == [met, APPLIED]
    steps = store.load_steps(["p"], 0, 9)["p"]
    assert [(s.step_id, s.child_workflow_id) for s in steps] == [(1, "c"), (2, "d")]
    row = store.get_workflow("c")
    assert row is not None
    assert row.parent_workflow_id is None


@pytest.mark.parametrize(
    "other", [{"name": "refund"}, {"class_name": "Shop"}, {"config_name": "g"}, {"reject_existing": True}], ids=repr
)
def test_a_child_start_that_may_not_attach_records_nothing(
    store: SqlStore, read: Rows, other: dict[str, object]
) -> None:
    store.commit([start("p"), start("c")])
    before = everything(read)
    met = ExistingWorkflow("PENDING", "checkout", None, None, None, "py_pickle")
    record = child("c", "p", 1, creator_token="new", **other)
    assert answers_are_repeatable(store, read, [record]) == [met]
    assert everything(read) == before


def test_a_child_start_of_a_parent_that_was_lost_is_fenced(store: SqlStore, read: Rows) -> None:
    store.commit([start("mine"), start("lost"), start("there")])
    store.cancel_workflows(["lost"], 1)
    records: list[Record] = [
        child("a", "mine", 1),
        child("b", "lost", 1),
        child("c", "unknown", 1),
        child("there", "lost", 2, creator_token="new"),
        child("d", "mine", 2, parent_token="older execution"),
    ]
    assert answers_are_repeatable(store, read, records) == [APPLIED, FENCED, FENCED, FENCED, FENCED]
    assert store.find_existing(["a", "b", "c", "d"]) == ["a"]
    assert list(store.load_steps(["mine", "lost", "unknown"], 0, 9)) == ["mine"]


def test_a_child_created_before_its_parent_was_lost_is_still_ours(store: SqlStore, read: Rows) -> None:
    store.commit([start("p")])
    store.commit([child("c", "p", 1)])
    store.cancel_workflows(["p"], 1)
    assert answers_are_repeatable(store, read, [child("c", "p", 1)]) == [APPLIED]


def test_a_child_start_at_a_step_id_in_use_writes_nothing(store: SqlStore, read: Rows) -> None:
    """03 R38: row, inputs and the step of the parent are one transaction."""
    store.commit([start("p"), start("there")])
    store.commit([step("p", 1)])
    before = everything(read)
    assert answers_are_repeatable(store, read, [child("c", "p", 1)]) == [REPEATED]
    assert answers_are_repeatable(store, read, [child("there", "p", 1, creator_token="new")]) == [REPEATED]
    assert everything(read) == before


def test_two_children_with_one_id_in_a_batch_are_one_workflow(store: SqlStore, read: Rows) -> None:
    store.commit([start("p")])
    records = [child("c", "p", 1), child("c", "p", 2, creator_token="second")]
    answers = answers_are_repeatable(store, read, records)
    assert answers == [APPLIED, ExistingWorkflow("PENDING", "checkout", None, None, None, "py_pickle")]
    assert [s.child_workflow_id for s in store.load_steps(["p"], 0, 9)["p"]] == ["c", "c"]


# --- batches


def test_a_batch_mixes_every_kind_of_record(store: SqlStore, read: Rows) -> None:
    store.commit([start(f"old{i}") for i in range(4)])
    records: list[Record] = [
        finish("old0"),
        step("old1", 1),
        start("new0"),
        child("new1", "old2", 1),
        step("old1", 2),
        start("new2"),
        finish("old3", status="ERROR", output=None, error="broken"),
        child("new3", "old1", 3),
    ]
    assert answers_are_repeatable(store, read, records) == [APPLIED] * len(records)
    assert sorted(store.find_existing([f"new{i}" for i in range(4)])) == ["new0", "new1", "new2", "new3"]
    assert sorted(store.find_final([f"old{i}" for i in range(4)])) == ["old0", "old3"]
    assert [s.step_id for s in store.load_steps(["old1"], 0, 9)["old1"]] == [1, 2, 3]


def test_a_bad_record_of_every_kind_leaves_its_neighbours_alone(store: SqlStore, read: Rows) -> None:
    store.commit([start("a"), start("b"), start("c"), start("lost")])
    store.commit([step("a", 1)])
    store.cancel_workflows(["lost"], 1)
    records: list[Record] = [
        start("b", creator_token="new"),
        start("x"),
        step("a", 1, completed_at_ms=9_999),
        step("a", 2),
        step("lost", 1),
        child("y", "lost", 2),
        child("z", "a", 3),
        finish("lost"),
        finish("c"),
    ]
    met = ExistingWorkflow("PENDING", "checkout", None, None, None, "py_pickle")
    expected = [met, APPLIED, REPEATED, APPLIED, FENCED, FENCED, APPLIED, FENCED, APPLIED]
    assert answers_are_repeatable(store, read, records) == expected


@pytest.mark.parametrize("size", [0, 1, 2, 1000])
def test_batches_of_any_size_are_answered_in_order(store: SqlStore, read: Rows, size: int) -> None:
    kept = [f"w{i:04}" for i in range(size)]
    assert answers_are_repeatable(store, read, [start(w) for w in kept]) == [APPLIED] * size
    assert answers_are_repeatable(store, read, [step(w, 1) for w in kept]) == [APPLIED] * size
    assert answers_are_repeatable(store, read, [child(f"{w}-c", w, 2) for w in kept]) == [APPLIED] * size
    store.cancel_workflows(kept[::7], 1)
    expected = [FENCED if i % 7 == 0 else APPLIED for i in range(size)]
    assert answers_are_repeatable(store, read, [finish(w) for w in reversed(kept)]) == expected[::-1]
    outcomes = store.find_outcomes(kept)
    assert [outcomes[w].output for w in kept] == [None if i % 7 == 0 else f"result of {w}" for i, w in enumerate(kept)]
    steps = store.load_steps(kept, 0, 9)
    assert all([s.output for s in steps[w]] == [f"output of {w}/1", None] for w in kept)


@pytest.mark.parametrize("kind", ["start", "child", "step", "finish"])
@pytest.mark.parametrize("poison", ["before\0after", "half \ud83d", "\\\0"], ids=["NUL", "surrogate", "escaped"])
def test_a_text_the_database_cannot_hold_is_refused_and_nothing_of_its_batch_written(
    store: SqlStore, read: Rows, kind: str, poison: str
) -> None:
    store.commit([start("w"), start("v")])
    poisoned: Record = {
        "start": start("x", inputs=poison),
        "child": child("x", "w", 1, inputs=poison),
        "step": step("w", 1, output=poison),
        "finish": finish("w", output=poison),
    }[kind]
    good: list[Record] = [start("y"), step("v", 1), finish("v")]
    before = everything(read)
    with pytest.raises(StoreRefused):
        store.commit([poisoned])
    with pytest.raises(StoreRefused):
        store.commit([*good, poisoned])
    assert everything(read) == before
    assert store.commit(good) == [APPLIED, APPLIED, APPLIED]


# --- what texts and numbers may be


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_come_back_as_they_were_written(store: SqlStore, kind: str) -> None:
    text = TEXTS[kind]
    workflow_id = f"id {text}"
    common = {"owner_token": f"token {text}"}
    given = common | {"creator_token": f"creator {text}", "name": text, "class_name": text, "config_name": text}
    extra = {"inputs": text, "serialization": text, "authenticated_user": text, "assumed_role": text}
    for suffix in ("", "+"):  # alone, then in a batch: two ways to the database
        own, other = workflow_id + suffix, f"other {suffix}"
        others: list[list[Record]] = [[start(other)], [step(other, 1)], [finish(other)]] if suffix else [[], [], []]
        started = start(own, **given | extra)
        recorded = step(own, 1, **common, name=text, output=text, serialization=text, child_workflow_id=text)
        failed = step(own, 2, **common, output=None, error=text)
        ended = finish(own, **common, output=text, error=text)
        assert set(store.commit([started, *others[0]])) == {APPLIED}
        assert set(store.commit([recorded, *others[1]])) == {APPLIED}
        assert store.commit([failed]) == [APPLIED]
        assert set(store.commit([ended, *others[2]])) == {APPLIED}
        row = store.get_workflow(own)
        assert row is not None
        assert (row.workflow_id, row.name, row.class_name, row.config_name) == (own, text, text, text)
        assert (row.inputs, row.output, row.error, row.serialization) == (text, text, text, text)
        assert (row.authenticated_user, row.assumed_role) == (text, text)
        first, second = store.load_steps([own], 0, 9)[own]
        assert (first.name, first.output, first.serialization, first.child_workflow_id) == (text, text, text, text)
        assert (second.output, second.error) == (None, text)
        assert store.find_final([own]) == store.find_existing([own]) == [own]


def test_attributes_keep_their_unicode(store: SqlStore) -> None:
    text = '{"k": "\\u2028 \\"quoted\\" \\\\ 👩"}'
    store.commit([start("w", attributes=text)])
    store.commit([start("v", attributes=text), start("u", attributes="null")])
    for workflow_id in ("w", "v"):
        row = store.get_workflow(workflow_id)
        assert row is not None
        assert row.attributes is not None
        assert json.loads(row.attributes) == json.loads(text)


def test_numbers_reach_up_to_the_largest(store: SqlStore) -> None:
    largest = {"timeout_ms": LARGEST, "deadline_ms": LARGEST, "recovery_attempts": LARGEST}
    store.commit([start("a", **largest)])
    store.commit([start("b", **largest), start("c")])
    for workflow_id in ("a", "b"):
        row = store.get_workflow(workflow_id)
        assert row is not None
        assert (row.timeout_ms, row.deadline_ms, row.recovery_attempts) == (LARGEST, LARGEST, LARGEST)
    times = {"started_at_ms": LARGEST - 1, "completed_at_ms": LARGEST}
    store.commit([step("a", 2**31 - 1, **times)])
    store.commit([step("b", 2**31 - 1, **times), step("c", 0, **times)])
    for workflow_id, step_id in (("a", 2**31 - 1), ("b", 2**31 - 1), ("c", 0)):
        (found,) = store.load_steps([workflow_id], -1, 2**31 - 1)[workflow_id]
        assert (found.step_id, found.started_at_ms, found.completed_at_ms) == (step_id, LARGEST - 1, LARGEST)


def test_payloads_of_many_megabytes_travel_alone_and_in_a_batch(store: SqlStore) -> None:
    large = "0123456789abcdeé" * (20 * 1024 * 1024 // 16)
    store.commit([start("a", inputs=large), start("b")])
    store.commit([step("a", 1, output=large), step("b", 1)])
    store.commit([step("b", 2, output=large)])
    store.commit([finish("a", output=large), finish("b")])
    row = store.get_workflow("a")
    assert row is not None
    assert row.inputs == large
    assert row.output == large
    assert store.load_steps(["a"], 0, 9)["a"][0].output == large
    assert [s.output == large for s in store.load_steps(["b"], 0, 9)["b"]] == [False, True]
