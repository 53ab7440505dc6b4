"""The filters of listings: what each finds, and values that mean nothing (05 R72 to R75)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dbos import DBOS
from dbos.error import DBOSException
from tests.listing.asking import MONDAY, MONDAY_MS, Insert, at, listed

# For each filter: two workflows that differ in what it looks at, and values that find the first one only.
TEXT_FILTERS = [
    ("status", {"status": "ERROR"}, {"status": "PENDING"}, "ERROR"),
    ("name", {"name": "one"}, {"name": "other"}, "one"),
    ("app_version", {"application_version": "v1"}, {"application_version": None}, "v1"),
    ("forked_from", {"forked_from": "x"}, {"forked_from": None}, "x"),
    ("parent_workflow_id", {"parent_workflow_id": "x"}, {"parent_workflow_id": "x-1"}, "x"),
    ("user", {"authenticated_user": "ann"}, {"authenticated_user": None}, "ann"),
    ("queue_name", {"queue_name": "mail"}, {"queue_name": None}, "mail"),
    ("executor_id", {"executor_id": "e1"}, {"executor_id": "e2"}, "e1"),
    ("schedule_name", {"schedule_name": "nightly"}, {"schedule_name": None}, "nightly"),
]


@pytest.mark.parametrize(("argument", "first", "second", "value"), TEXT_FILTERS, ids=[f[0] for f in TEXT_FILTERS])
def test_a_text_filter_takes_one_value_or_several(
    insert: Insert, argument: str, first: dict[str, Any], second: dict[str, Any], value: str
) -> None:
    """05 R72; R75 and section 15: an empty list matches nothing."""
    insert("first", **first)
    insert("second", **second)
    absent = "CANCELLED" if argument == "status" else "absent"
    assert listed(**{argument: value}) == ["first"]
    assert listed(**{argument: [absent, value]}) == ["first"]
    assert listed(**{argument: absent}) == []
    assert listed(**{argument: []}) == []
    assert listed(**{argument: None}) == ["first", "second"]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    "statuses",
    [
        ["PENDING"],
        ["DELAYED"],
        ["ENQUEUED", "PENDING"],
        ["ENQUEUED", "DELAYED", "PENDING"],
        ["ERROR", "CANCELLED"],
        ["MAX_RECOVERY_ATTEMPTS_EXCEEDED"],
        ["SUCCESS", "ERROR"],
    ],
)
def test_every_set_of_statuses_is_found_whichever_index_serves_it(insert: Insert, statuses: list[str]) -> None:
    everything = ["PENDING", "SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED", "ENQUEUED", "DELAYED"]
    for status in everything:
        # Of another application, so that no process takes them up.
        insert(status, status=status, queue_name="mail", application_name="other")
    assert set(listed(status=statuses, application_name="other")) == set(statuses)
    assert set(listed(status=statuses, queue_name="mail", application_name="other")) == set(statuses)
    assert set(listed(status=statuses, queues_only=True, application_name="other")) == set(statuses)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("start", "end", "column"),
    [
        ("start_time", "end_time", "created_at"),
        ("completed_after", "completed_before", "completed_at"),
        ("dequeued_after", "dequeued_before", "started_at_epoch_ms"),
    ],
)
def test_a_range_of_times_includes_both_ends(insert: Insert, start: str, end: str, column: str) -> None:
    """05 R72."""
    for offset in (0, 500, 1000):
        insert(f"w{offset:04}", **{"created_at": MONDAY_MS + offset, column: MONDAY_MS + offset})
    if column != "created_at":
        insert("never", created_at=MONDAY_MS + 2000)
    assert listed(**{start: at(500)}) == ["w0500", "w1000"]
    assert listed(**{end: at(500)}) == ["w0000", "w0500"]
    assert listed(**{start: at(500), end: at(500)}) == ["w0500"]
    assert listed(**{start: at(500)}, sort_desc=True, limit=1) == ["w1000"]
    assert listed(**{end: at(500)}, sort_desc=True) == ["w0500", "w0000"]
    assert listed(**{start: at(1001)}) == []


def test_times_are_iso_texts_with_an_offset_or_in_local_time(insert: Insert) -> None:
    """05 R72."""
    insert("w")
    local = MONDAY.astimezone().replace(tzinfo=None).isoformat()
    for time in (local, "2026-01-05T12:00:00Z", "2026-01-05T13:00:00+01:00", "2026-01-05 12:00:00.000999+00:00"):
        assert listed(start_time=time, end_time=time) == ["w"], time
    assert listed(start_time="2026-01-01") == ["w"]


@pytest.mark.usefixtures("way")
def test_a_prefix_is_literal(insert: Insert) -> None:
    """05 R72: its characters are no wildcards."""
    for workflow_id in ("a_1", "ab1", "a%1", "A_1", "b", "a\\b", "[b", "\xff\U0010ffff"):
        insert(workflow_id)
    assert listed(workflow_id_prefix="a_") == ["a_1"]
    assert listed(workflow_id_prefix="a%") == ["a%1"]
    assert set(listed(workflow_id_prefix=["ab", "b"])) == {"ab1", "b"}
    for prefix, found in (("a\\", "a\\b"), ("[", "[b"), ("\xff", "\xff\U0010ffff"), ("\xff\U0010ffff",) * 2):
        assert listed(workflow_id_prefix=prefix) == [found]
    assert len(listed(workflow_id_prefix="")) == 8
    assert listed(workflow_id_prefix=[]) == []


def test_ids_are_looked_up_whatever_the_application(insert: Insert) -> None:
    """05 R72, R74, R75."""
    insert("own")
    insert("foreign", application_name="other")
    assert listed(workflow_ids=["foreign", "own", "missing", "own"]) == ["foreign", "own"]
    assert listed(workflow_ids=["foreign", "own"], application_name="test-app") == ["own"]
    assert listed(workflow_ids=[]) == []


def test_the_application_and_what_nobody_owns_are_listed(insert: Insert) -> None:
    """05 R74."""
    for workflow_id, application in (("own", "test-app"), ("unclaimed", None), ("b", "second"), ("c", "third")):
        insert(workflow_id, application_name=application)
    assert listed() == ["own", "unclaimed"]
    assert listed(application_name="second") == ["b", "unclaimed"]
    assert listed(application_name=["second", "third"]) == ["b", "c", "unclaimed"]
    assert listed(application_name="") == listed(application_name=[]) == ["b", "c", "own", "unclaimed"]


@pytest.mark.usefixtures("way")
def test_forks_and_children_by_what_they_are(insert: Insert) -> None:
    """05 R72: three states."""
    insert("source", was_forked_from=True)
    insert("fork", forked_from="source")
    insert("child", parent_workflow_id="source")
    everything = ["child", "fork", "source"]
    for argument, matching in (("is_fork", ["fork"]), ("was_forked_from", ["source"]), ("has_parent", ["child"])):
        assert listed(**{argument: True}) == matching
        assert listed(**{argument: False}) == [name for name in everything if name not in matching]
        assert listed(**{argument: None}) == everything


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        ({"a": 1}, True),
        ({"a": 1.0}, True),
        ({"a": True}, False),
        ({"a": "1"}, False),
        ({"a": None}, False),
        ({"missing": None}, False),
        ({"nothing": None}, True),
        ({"yes": True}, True),
        ({"yes": 1}, False),
        ({"in": {"x": "y"}}, True),
        ({"in": {}}, True),
        ({"in": {"x": "z"}}, False),
        ({"in": "x"}, False),
        ({"list": [3]}, True),
        ({"list": [3, 1, 3]}, True),
        ({"list": []}, True),
        ({"list": [1, 4]}, False),
        ({"list": 1}, False),
        ({"deep": [{"k": 2}]}, True),
        ({"deep": [{"k": 1, "l": 2}]}, False),
        ({"a": 1, "yes": True, "in": {"x": "y"}}, True),
        ({"ключ": "значение"}, True),
        ({}, True),
    ],
)
def test_attributes_contain_what_is_wanted(insert: Insert, wanted: dict[str, Any], matches: bool) -> None:
    """05 R72: the same on both backends."""
    stored = {
        "a": 1,
        "nothing": None,
        "yes": True,
        "in": {"x": "y", "z": 1},
        "list": [1, 2, 3],
        "deep": [{"k": 1}, {"k": 2, "l": 2}],
        "ключ": "значение",
    }
    insert("w", attributes=json.dumps(stored))
    insert("null", attributes="null")
    insert("none", attributes=None)
    # Nothing wanted is no filter.
    assert listed(attributes=wanted) == ((["w"] if matches else []) if wanted else ["none", "null", "w"])


def test_filters_are_combined(insert: Insert) -> None:
    """05 R72."""
    for number in range(8):
        insert(
            f"w{number}",
            status="ERROR" if number % 2 else "SUCCESS",
            name="one" if number < 4 else "two",
            authenticated_user="ann",
            created_at=MONDAY_MS + number,
        )
    assert listed(status="ERROR", name="one", user=["ann", "bob"], start_time=at(2), limit=5) == ["w3"]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("workflow_ids", [1]),
        ("workflow_ids", 5),
        ("status", "FINISHED"),
        ("status", [None]),
        ("name", b"bytes"),
        ("start_time", "yesterday"),
        ("start_time", ""),
        ("end_time", 1_700_000_000),
        ("dequeued_after", "2026-13-01"),
        ("completed_before", MONDAY),
        ("limit", -1),
        ("limit", "10"),
        ("limit", True),
        ("offset", -5),
        ("offset", 1.5),
        ("sort_desc", "yes"),
        ("sort_desc", None),
        ("load_input", 1),
        ("queues_only", None),
        ("has_parent", "no"),
        ("attributes", [1]),
        ("attributes", {"a": object()}),
        ("attributes", {"a": "nul\0"}),
        ("attributes", {"a": float("nan")}),
    ],
)
def test_a_filter_that_means_nothing_is_refused_by_name(app: type[DBOS], argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=argument):
        DBOS.list_workflows(**{argument: value})


@pytest.mark.parametrize(
    ("argument", "value"), [("shard_key", "s"), ("parent_shard_key", ["s"]), ("user", "nul\0"), ("name", ["\ud800"])]
)
def test_what_no_database_here_can_hold_is_refused(app: type[DBOS], argument: str, value: Any) -> None:
    """05 section 0."""
    with pytest.raises(DBOSException):
        DBOS.list_workflows(**{argument: value})
