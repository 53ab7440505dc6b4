"""Effects in the journal's batches: with their step rows or not at all, and each with its own answer."""

from __future__ import annotations

from typing import Any

import pytest

from dbos.records import EventSet, Verdict
from dbos.storage.database import SqlStore
from tests.storage.making import Rows, finish, start, step


def event(workflow_id: str, step_id: int, value: str, **given: Any) -> EventSet:
    """An event of the execution that `start` made, in workflow code; `in_step` makes it one of a step."""
    token = given.pop("owner_token", f"token-{workflow_id}")
    row = step(workflow_id, step_id, owner_token=token, output=None, name="DBOS.setEvent", serialization=None)
    recorded = None if given.pop("in_step", False) else row
    return EventSet(workflow_id, token, step_id, given.pop("key", "k"), value, "portable_json", recorded)


def values(read: Rows) -> dict[tuple[str, str], str]:
    return {(row["workflow_uuid"], row["key"]): row["value"] for row in read("SELECT * FROM workflow_events")}


@pytest.mark.parametrize("in_step", [False, True])
@pytest.mark.parametrize("company", [0, 2, 20])
def test_a_repeated_commit_finds_what_it_has_written(store: SqlStore, read: Rows, in_step: bool, company: int) -> None:
    """As after an answer that was lost; alone, among a few, and among many."""
    store.commit([start("w")])
    records = [event("w", 1, "1", in_step=in_step), *[step("w", 2 + i) for i in range(company)]]
    assert store.commit(records) == [Verdict.APPLIED] * len(records)
    before = read("SELECT * FROM workflow_events_history")
    assert store.commit(records) == [Verdict.APPLIED] * len(records)
    assert read("SELECT * FROM workflow_events_history") == before
    assert values(read) == {("w", "k"): "1"}


@pytest.mark.parametrize("in_step", [False, True])
@pytest.mark.parametrize("company", [0, 2, 20])
def test_a_fenced_effect_leaves_nothing_and_stops_nobody_else(
    store: SqlStore, read: Rows, in_step: bool, company: int
) -> None:
    store.commit([start("w"), start("other")])
    read("UPDATE workflow_status SET owner_xid = 'another' WHERE workflow_uuid = 'w'")
    others = [event("other", 1 + i, str(i), in_step=in_step) for i in range(company)]
    answers = store.commit([event("w", 1, "1", in_step=in_step), *others])
    assert answers == [Verdict.FENCED, *[Verdict.APPLIED] * company]
    assert values(read) == ({("other", "k"): str(company - 1)} if company else {})
    assert read("SELECT * FROM operation_outputs WHERE workflow_uuid = 'w'") == []


@pytest.mark.parametrize("company", [0, 2, 20])
def test_an_effect_whose_step_is_recorded_otherwise_is_not_repeated(store: SqlStore, read: Rows, company: int) -> None:
    """Another task of the same execution has taken the id."""
    store.commit([start("w"), step("w", 1, completed_at_ms=9)])
    others = [event("w", 2 + i, str(i), key="other") for i in range(company)]
    answers = store.commit([event("w", 1, "new"), *others])
    assert answers == [Verdict.REPEATED, *[Verdict.APPLIED] * company]
    assert values(read) == ({("w", "other"): str(company - 1)} if company else {})


def test_an_effect_and_the_end_of_its_workflow_may_share_a_batch(store: SqlStore, read: Rows) -> None:
    """A task that the workflow did not wait for."""
    store.commit([start("w")])
    assert store.commit([finish("w"), event("w", 1, "1")]) == [Verdict.APPLIED] * 2
    assert values(read) == {("w", "k"): "1"}


def test_a_second_row_is_written_with_the_first_or_not_at_all(store: SqlStore, read: Rows) -> None:
    store.commit([start("w")])
    pair = step("w", 1)
    pair.also = step("w", 2)
    assert store.commit([pair]) == [Verdict.APPLIED]
    fenced = step("w", 3, owner_token="another")
    fenced.also = step("w", 4, owner_token="another")
    assert store.commit([fenced, step("w", 5)]) == [Verdict.FENCED, Verdict.APPLIED]
    found = read("SELECT function_id FROM operation_outputs ORDER BY function_id")
    assert [row["function_id"] for row in found] == [1, 2, 5]
