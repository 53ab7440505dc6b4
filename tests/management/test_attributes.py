"""Changing the attributes of a workflow (05 section 11.12)."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowAttributes, SetWorkflowID
from dbos.error import DBOSException
from dbos.storage.database import SqlStore
from dbos.storage.store import StoreRefused
from tests.helpers import replay, rows, status_row, step_names

from .rows_of import STATUSES, add_workflow
from .sides import Side
from .test_forking import declare, run

Config = dict[str, Any]


def attributes(workflow_id: str = "w") -> Any:
    (status,) = DBOS.list_workflows(workflow_ids=[workflow_id])
    return status.attributes


def test_attributes_are_replaced_or_removed(sides: list[Side], database_url: str) -> None:
    """05 R97: in any state; `updated_at` moves; none is SQL NULL; an unknown id is ignored."""
    three = declare()
    for side in sides:
        with SetWorkflowAttributes({"a": 1, "b": {"c": 2}}):
            run(three, "w", "x")
        rows(database_url, "UPDATE workflow_status SET updated_at = 7")
        side.update_workflow_attributes("w", {"naïve ☃": [1, None, 2.5, "x"], "big": 2**60})
        assert attributes() == {"naïve ☃": [1, None, 2.5, "x"], "big": 2**60}
        assert status_row(database_url, "w")["updated_at"] > 7
        for none in (None, {}):
            side.update_workflow_attributes("w", {"a": 1})
            side.update_workflow_attributes("w", none)
            assert attributes() is None
            assert status_row(database_url, "w")["attributes"] is None
        side.update_workflow_attributes("absent", {"a": 1})
        for status in STATUSES:
            add_workflow(database_url, f"{side} {status}", status)
            for merge in (False, True):
                side.update_workflow_attributes(f"{side} {status}", {str(merge): status}, merge=merge)
            assert attributes(f"{side} {status}") == {"False": status, "True": status}


def test_merging_sets_keys_as_a_whole_and_keeps_the_others(sides: list[Side], database_url: str) -> None:
    """05 R97: nested objects are replaced, None becomes JSON null."""
    for side in sides:
        add_workflow(database_url, f"{side}", "SUCCESS")

        def merge(given: dict[str, Any], side: Side = side) -> Any:
            side.update_workflow_attributes(f"{side}", given, merge=True)
            return attributes(f"{side}")

        merge({"a": 1, "b": {"c": 2, "d": 3}, "keep": [0.1]})
        merged = {"a": None, "b": {"e": 4}, "keep": [0.1], "new": "n"}
        assert merge({"a": None, "b": {"e": 4}, "new": "n"}) == merged
        rows(database_url, "UPDATE workflow_status SET updated_at = 7")
        assert merge({}) == merged
        assert status_row(database_url, f"{side}")["updated_at"] > 7
        many = {f"key {number}": number for number in range(200)}
        assert merge(many) == merged | many


@pytest.mark.parametrize("stored", ["null", "[1]", '"text"'])
def test_content_that_is_no_object_counts_as_empty(sides: list[Side], database_url: str, stored: str) -> None:
    """05 R97."""
    for side in sides:
        add_workflow(database_url, f"{side}", "SUCCESS", attributes=stored)
        side.update_workflow_attributes(f"{side}", {"a": 1}, merge=True)
        assert attributes(f"{side}") == {"a": 1}


def test_merges_at_the_same_time_lose_nothing(app: type[DBOS]) -> None:
    """05 R97: one atomic statement."""
    run(declare(), "w", "x")

    def merge(first: int) -> None:
        for number in range(first, first + 10):
            DBOS.update_workflow_attributes("w", {str(number): number}, merge=True)

    threads = [threading.Thread(target=merge, args=(first,)) for first in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert attributes() == {str(number): number for number in range(30)}


@pytest.mark.parametrize("given", ["text", [1], 5, {"a": object()}, {"a": float("nan")}, {"a": "\0"}, {"a": "\ud800"}])
def test_attributes_that_are_no_json_object_are_refused(sides: list[Side], given: Any) -> None:
    """05 R96, R97."""
    with SetWorkflowAttributes({"kept": True}):
        run(declare(), "w", "x")
    for side in sides:
        for merge in (False, True):
            with pytest.raises(DBOSException, match="attributes"):
                side.update_workflow_attributes("w", given, merge=merge)
    assert attributes() == {"kept": True}


def test_none_cannot_be_merged(sides: list[Side]) -> None:
    """05 R97."""
    for side in sides:
        for given, merge in ((None, True), ({"a": 1}, "yes")):
            with pytest.raises(DBOSException, match="merge"):
                side.update_workflow_attributes("w", given, merge=merge)


def test_what_the_database_refuses_is_an_error_of_ours(app: type[DBOS], monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a number or a text beyond the limits of `jsonb`."""
    run(declare(), "w", "x")

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise StoreRefused("too long")

    monkeypatch.setattr(SqlStore, "update_attributes", refuse)
    with pytest.raises(DBOSException, match="refused the attributes of workflow 'w': too long"):
        DBOS.update_workflow_attributes("w", {"a": 1})


def test_in_workflow_code_a_change_is_one_step(app: type[DBOS], config: Config, database_url: str) -> None:
    """05 R67: a replay does not take back what came later."""
    run(declare(), "w", "x")

    @DBOS.workflow()
    def changing() -> None:
        DBOS.update_workflow_attributes("w", {"a": 1})
        DBOS.update_workflow_attributes(DBOS.workflow_id or "", {"own": True}, merge=True)

    run(changing, "c")
    names = {1: "DBOS.updateWorkflowAttributes", 2: "DBOS.updateWorkflowAttributes"}
    assert step_names(database_url, "c") == names
    assert (attributes("w"), attributes("c")) == ({"a": 1}, {"own": True})
    DBOS.update_workflow_attributes("w", {"a": 2})
    replay(config, "c")
    assert attributes("w") == {"a": 2}


async def test_a_change_from_async_code(app: type[DBOS]) -> None:
    """05 R63."""
    three = declare()
    with SetWorkflowID("w"):
        await (await DBOS.start_workflow_async(three, "x")).get_result()
    await DBOS.update_workflow_attributes_async("w", {"a": 1})
    await DBOS.update_workflow_attributes_async("w", {"b": 2}, merge=True)
    (status,) = await DBOS.list_workflows_async(workflow_ids=["w"])
    assert status.attributes == {"a": 1, "b": 2}
