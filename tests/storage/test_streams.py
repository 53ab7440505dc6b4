"""Stream entries in the journal's batches: where they stand, once each, and what a lost answer leaves open."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from dbos.records import StreamEnd, StreamWritten, Verdict
from dbos.storage.database import SqlStore
from dbos.storage.store import StoreRefused, StoreUnavailable
from tests.helpers import wait_until
from tests.storage.conftest import Opened
from tests.storage.making import Rows, entry, finish, start, step


def stored(read: Rows, workflow_id: str = "w") -> list[tuple[str, int, str, int]]:
    sql = 'SELECT key, "offset", value, function_id FROM streams WHERE workflow_uuid = %s ORDER BY key, "offset"'
    return [(r["key"], r["offset"], r["value"], r["function_id"]) for r in read(sql, workflow_id)]


def values(read: Rows, workflow_id: str = "w") -> list[str]:
    """The values of stream k, whose offsets must have no gaps."""
    found = [row for row in stored(read, workflow_id) if row[0] == "k"]
    assert [row[1] for row in found] == list(range(len(found)))
    return [row[2] for row in found]


def written(*entries: StreamWritten) -> list[int | None]:
    return [one.offset for one in entries]


@pytest.mark.parametrize("in_step", [False, True])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_entries_of_one_batch_stand_behind_each_other_in_their_order(
    store: SqlStore, read: Rows, in_step: bool, count: int
) -> None:
    """04 R301: from 0, in several streams at once; known to the execution without a read after the first time."""
    store.commit([start("w"), start("v")])
    ends = {key: StreamEnd() for key in "kl"}
    for first in (0, count):
        batch = [
            entry("w", 1 + i, str(i), key=key, in_step=in_step, end=ends[key])
            for i in range(first, first + count)
            for key in "kl"
        ]
        if not in_step:
            batch = [one for i, one in enumerate(batch) if i % 2 == 0]
        other = entry("v", 1 + first, "other", in_step=in_step)
        assert store.commit([*batch, other]) == [Verdict.APPLIED] * (len(batch) + 1)
        assert written(*[one for one in batch if one.key == "k"]) == list(range(first, first + count))
    assert values(read) == [str(i) for i in range(2 * count)]
    assert ends["k"].top == 2 * count - 1
    assert values(read, "v") == ["other"] * 2


@pytest.mark.parametrize("in_step", [False, True])
@pytest.mark.parametrize("company", [0, 2, 20])
def test_a_repeated_commit_finds_what_it_has_written(store: SqlStore, read: Rows, in_step: bool, company: int) -> None:
    """04 12.18: as after an answer that was lost; equal values, alone, among a few, and among many."""
    store.commit([start("w")])
    end = StreamEnd()
    before = entry("w", 1, "same", in_step=True, end=end)
    assert store.commit([before]) == [Verdict.APPLIED]
    records: list[Any] = [entry("w", 2 + i, "same", in_step=in_step, end=end) for i in range(2)]
    records += [step("w", 10 + i) for i in range(company)]
    for _ in range(3):
        assert store.commit(records) == [Verdict.APPLIED] * len(records)
        assert values(read) == ["same"] * 3
    after = entry("w", 5, "after", in_step=in_step, end=end)
    assert store.commit([after]) == [Verdict.APPLIED]
    assert values(read) == ["same"] * 3 + ["after"]


def test_entries_of_a_lost_commit_are_found_in_whatever_company_they_return(store: SqlStore, read: Rows) -> None:
    """The batches after a lost answer need not be the same ones."""
    store.commit([start("w")])
    end = StreamEnd()
    first, second, third = [entry("w", 1, "same", in_step=True, end=end) for _ in range(3)]
    store.commit([first, second])
    for batch in ([first], [second, third], [third]):
        assert store.commit(batch) == [Verdict.APPLIED] * len(batch)
    assert values(read) == ["same"] * 3


def test_entries_that_were_never_written_are_written_once_in_other_batches(store: SqlStore, read: Rows) -> None:
    store.commit([start("w")])
    end = StreamEnd()
    first, second, third = [entry("w", 1, "same", in_step=True, end=end) for _ in range(3)]
    # As if a commit of the two had failed before it reached the database.
    first.offset, second.offset = 0, 1
    for batch in ([first], [second, third]):
        assert store.commit(batch) == [Verdict.APPLIED] * len(batch)
    assert values(read) == ["same"] * 3


def test_a_commit_that_arrives_late_writes_nothing_twice(
    store: SqlStore, read: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may carry out a commit after its client has given up and repeated it."""
    store.commit([start("w")])
    late = entry("w", 1, "x", in_step=True)
    late.offset = 0
    assert store.commit([entry("w", 1, "x", in_step=True)]) == [Verdict.APPLIED]
    monkeypatch.setattr(store, "_place", lambda entries: None)
    assert store.commit([late]) == [Verdict.APPLIED]
    assert values(read) == ["x"]


def test_an_entry_whose_place_is_taken_gets_the_next_one(store: SqlStore, read: Rows) -> None:
    """04 R301: a writer that nobody here knows of; the next try counts again, and no gap arises."""
    store.commit([start("w")])
    end = StreamEnd()
    assert store.commit([entry("w", 1, "0", in_step=True, end=end)]) == [Verdict.APPLIED]
    read("INSERT INTO streams (workflow_uuid, key, value, \"offset\") VALUES ('w', 'k', 'strange', 1)")
    mine = [entry("w", 1, "1", in_step=True, end=end)]
    with pytest.raises(StoreUnavailable, match="has become longer"):
        store.commit(mine)
    assert store.commit(mine) == [Verdict.APPLIED]
    assert values(read) == ["0", "strange", "1"]


@pytest.mark.parametrize("in_step", [False, True])
def test_a_refused_entry_leaves_no_gap(store: SqlStore, read: Rows, in_step: bool) -> None:
    """The journal halves a batch that is refused, and repeats its parts."""
    store.commit([start("w")])
    end = StreamEnd()
    bad, good = entry("w", 1, "a\0b", in_step=in_step, end=end), entry("w", 2, "fine", in_step=in_step, end=end)
    for batch in ([bad, good], [bad]):
        with pytest.raises(StoreRefused):
            store.commit(batch)
    assert store.commit([good]) == [Verdict.APPLIED]
    assert values(read) == ["fine"]


@pytest.mark.parametrize("in_step", [False, True])
@pytest.mark.parametrize("company", [0, 2, 20])
def test_a_fenced_entry_leaves_nothing_and_stops_nobody_else(
    store: SqlStore, read: Rows, in_step: bool, company: int
) -> None:
    """04 R3: also one whose workflow was deleted."""
    store.commit([start("w"), start("other")])
    read("UPDATE workflow_status SET owner_xid = 'another' WHERE workflow_uuid = 'w'")
    end = StreamEnd()
    others = [entry("other", 1 + i, str(i), in_step=in_step, end=end) for i in range(company)]
    fenced = [entry("w", 1, "1", in_step=in_step), entry("deleted", 1, "1", in_step=in_step)]
    assert store.commit([*fenced, *others]) == [Verdict.FENCED] * 2 + [Verdict.APPLIED] * company
    assert values(read) == values(read, "deleted") == []
    assert values(read, "other") == [str(i) for i in range(company)]
    assert read("SELECT * FROM operation_outputs WHERE workflow_uuid = 'w'") == []


@pytest.mark.parametrize("company", [0, 2, 20])
def test_an_entry_whose_step_is_recorded_otherwise_is_not_written(store: SqlStore, read: Rows, company: int) -> None:
    """And leaves no gap between those around it, whoever writes them."""
    store.commit([start("w"), step("w", 2, completed_at_ms=9)])
    end = StreamEnd()
    batch = [entry("w", 1, "1", end=end), entry("w", 2, "2", end=end), entry("w", 7, "7", in_step=True, end=end)]
    batch += [entry("w", 10 + i, str(i), end=end) for i in range(company)]
    answers: list[Any] = []
    while not answers:
        try:
            answers = store.commit(batch)
        except StoreUnavailable:
            # The entry of the step did not stand where it was expected.
            continue
    assert answers == [Verdict.APPLIED, Verdict.REPEATED, *[Verdict.APPLIED] * (len(batch) - 2)]
    assert sorted(values(read)) == sorted(["1", "7", *[str(i) for i in range(company)]])


def test_entries_and_the_end_of_their_workflow_may_share_a_batch(store: SqlStore, read: Rows) -> None:
    store.commit([start("w")])
    assert store.commit([finish("w"), entry("w", 1, "1")]) == [Verdict.APPLIED] * 2
    assert values(read) == ["1"]


def test_a_page_has_consecutive_entries_and_the_status(store: SqlStore, read: Rows) -> None:
    """04 R315, R330: up to the first gap; nothing for a workflow that is not there."""
    store.commit([start("w"), start("v")])
    end = StreamEnd()
    store.commit([entry("w", 1 + i, str(i), end=end) for i in range(6)])
    read('DELETE FROM streams WHERE "offset" = 4')
    page = store.read_stream("w", "k", 1, 100)
    assert (page.status, [value.text for value in page.entries]) == ("PENDING", ["1", "2", "3"])
    assert [value.text for value in store.read_stream("w", "k", 1, 2).entries] == ["1", "2"]
    for offset in (4, 6, 10**6, -1):
        assert store.read_stream("w", "k", offset, 100) == ("PENDING", [], False)
    assert store.read_stream("w", "another", 0, 100) == ("PENDING", [], False)
    assert store.read_stream("nobody", "k", 0, 100) == (None, [], False)
    assert store.find_stream_ends([("w", "k"), ("v", "k"), ("w", "l")]) == {("w", "k"): 5}
    assert not store.has_marker("w", "k")
    assert not store.has_marker("absent", "k")
    read("INSERT INTO streams VALUES ('w', 'k', '\"__DBOS_STREAM_CLOSED__\"', 6, 9, 'portable_json')")
    assert store.read_stream("w", "k", 6, 100).closed_before is False
    assert store.read_stream("w", "k", 7, 100) == ("PENDING", [], True)


@pytest.mark.parametrize("backend", ["postgres"])
@pytest.mark.parametrize("in_step", [False, True])
@pytest.mark.parametrize("stays", [False, True])
def test_a_writer_that_is_not_committed_yet_is_waited_for(
    opened: Opened, read: Rows, in_step: bool, stays: bool
) -> None:
    """04 R301: other implementations append from steps before they look who owns the workflow."""
    store = opened.store
    store.commit([start("w")])
    mine = entry("w", 1, "mine", in_step=in_step)
    outcome: list[Any] = []

    def commit() -> None:
        try:
            outcome.append(store.commit([mine]))
        except StoreUnavailable as error:
            outcome.append(error)

    with psycopg.connect(opened.connection.info.dsn, password=opened.connection.info.password) as other:
        other.execute("INSERT INTO dbos.streams (workflow_uuid, key, value, \"offset\") VALUES ('w', 'k', 'theirs', 0)")
        thread = threading.Thread(target=commit)
        thread.start()
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        wait_until(lambda: read(waiting))
        if stays:
            other.commit()
        else:
            other.rollback()
        thread.join()
    if stays:
        assert isinstance(outcome[0], StoreUnavailable)
        assert values(read) == ["theirs"]
        assert read("SELECT * FROM operation_outputs") == []
        assert store.commit([mine]) == [Verdict.APPLIED]
        assert values(read) == ["theirs", "mine"]
    else:
        assert outcome == [[Verdict.APPLIED]]
        assert values(read) == ["mine"]
