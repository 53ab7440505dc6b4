"""The SQL files: both backends have the same statements, each is valid, and the hot ones search by key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from dbos.records import Message, MessagesSent
from dbos.storage.batch import EFFECTS, LONE, WITH_STEPS
from dbos.storage.database import SqlStore
from dbos.storage.listing import choose_lines, listing, most_to_sort
from dbos.storage.postgres import JOURNAL_SETTINGS
from dbos.storage.sql_files import load_statements
from dbos.types import WorkflowFilter
from tests.storage.conftest import Opened
from tests.storage.making import entry, finish, start, step

SQLITE = load_statements("sqlite", None)
POSTGRES = load_statements("postgres", "dbos")

JOURNAL = [
    "start_workflows",
    "start_children",
    "record_child_starts",
    "record_steps",
    "finish_workflows",
    *[name for name, _, _ in EFFECTS.values()],
    *[describe([])[0] for describe in WITH_STEPS.values()],
]
LONE_NAMES = [*LONE, *[name for _, name, _ in EFFECTS.values()]]
LONE_NAMES += [describe([])[1] for describe in WITH_STEPS.values()]
READS = ["find_step", "find_start", "load_steps", "list_steps", "get_workflow", "find_outcomes", "find_final"]
READS += ["find_cancelled", "find_existing", "find_key_holder", "read_stream", "find_stream_entry", "find_stream_ends"]
READS += ["has_marker", "list_messages"]
READS += ["find_messages", "find_filled_mailboxes", "find_message_ids", "find_forks"]
SERVICES = ["claim_workflows", "cancel_overdue", "requeue_pending", "find_children", "cancel_workflows"]
SERVICES += ["resume_workflows", "dead_letter", "find_owners", "requeue_dead"]
SERVICES += ["resume_workflows", "dead_letter", "bounce"]
SERVICES += ["find_states", "lock_workflows", "lock_for_deletion", "fork_workflow", "copy_inputs", "copy_steps"]
SERVICES += ["rewind_workflow", "forget_history", "delete_workflows", "set_attributes", "merge_attributes"]
TABLES = re.compile(r"\bSCAN (w|c|p|o|s|t|m|workflow_\w+|operation_outputs|streams|notifications)\b")
FILLED = 3_000
# That the journal's statements may use.
INDEXES = {"workflow_status_pkey", "operation_outputs_pkey", "notifications_pkey", "streams_pkey", "idx_workflow_topic"}


def fill(store: SqlStore) -> None:
    """Enough finished workflows that a planner sees a large table."""
    many = [f"w{i:05}" for i in range(FILLED)]
    for first in range(0, FILLED, 1000):
        part = many[first : first + 1000]
        store.commit([start(w) for w in part])
        store.commit([step(w, i) for w in part for i in (1, 2)])
        store.commit([entry(w, 3, "1") for w in part])
        store.commit([finish(w) for w in part[50:]])
        store.commit([MessagesSent([Message(f"{w}-{i}", w, "t", "text", "f") for i in (1, 2, 3)]) for w in part])


def analyze(opened: Opened) -> None:
    if opened.store.backend == "postgres":
        # What earlier tests have left behind in this table and its indexes would count too.
        opened.read("VACUUM FULL workflow_status")
    opened.read("ANALYZE")


@pytest.fixture(params=["empty", "filled"])
def populated(request: pytest.FixtureRequest, opened: Opened) -> Iterator[Opened]:
    """A database with nothing in it, and one with thousands of workflows and fresh statistics."""
    if request.param == "filled":
        fill(opened.store)
        analyze(opened)
    yield opened
    if opened.store.backend == "sqlite":
        opened.read("DROP TABLE IF EXISTS sqlite_stat1")
        opened.read("DROP TABLE IF EXISTS sqlite_stat4")


def test_both_backends_have_the_same_statements() -> None:
    assert set(POSTGRES) - set(SQLITE) == {"guard_queue", "find_dead"}
    assert set(SQLITE) < set(POSTGRES)
    assert {*JOURNAL, *LONE_NAMES} < set(SQLITE)


@pytest.mark.parametrize("name", sorted(SQLITE))
def test_a_sqlite_statement_is_valid_on_a_fresh_database(name: str, open_backend: Callable[[str], Opened]) -> None:
    connection = open_backend("sqlite").connection
    for text in SQLITE[name].texts:
        assert connection.execute(f"EXPLAIN {text}", [None] * parameter_count(text)).fetchone()


@pytest.mark.parametrize("name", sorted(POSTGRES))
def test_a_postgres_statement_is_valid_on_a_fresh_database(name: str, open_backend: Callable[[str], Opened]) -> None:
    assert len(POSTGRES[name].texts) == 1
    connection = open_backend("postgres").connection
    with prepared(connection, name) as count:
        assert count == parameter_count(POSTGRES[name].texts[0])


@pytest.mark.parametrize("name", sorted(SQLITE))
def test_a_statement_takes_the_same_parameters_on_both_backends(name: str) -> None:
    lite = max(parameter_count(text) for text in SQLITE[name].texts)
    postgres = parameter_count(POSTGRES[name].texts[0])
    # Claims alone get the time of the write lock, which Postgres takes from its own clock.
    assert lite == postgres + (1 if name in ("claim_workflows", "claim_partitions") else 0)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_sqlite_searches_by_key(populated: Opened) -> None:
    for name in [*JOURNAL, *READS, *SERVICES]:
        for text in SQLITE[name].texts:
            plan = populated.connection.execute(f"EXPLAIN QUERY PLAN {text}", [None] * parameter_count(text)).fetchall()
            details = [row["detail"] for row in plan]
            # A scan of the partial index on PENDING reads what is asked for and nothing else.
            scans = [d for d in details if TABLES.search(d) and "VIRTUAL" not in d]
            scans = [d for d in scans if "INDEX idx_workflow_status_pending" not in d]
            assert scans == [], (name, details)
            assert all("AUTOMATIC" not in detail for detail in details), (name, details)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_sqlite_finds_single_rows_by_primary_key(populated: Opened) -> None:
    for name in [*JOURNAL, "find_step", "find_outcomes", "load_steps", "get_workflow"]:
        for text in SQLITE[name].texts:
            plan = populated.connection.execute(f"EXPLAIN QUERY PLAN {text}", [None] * parameter_count(text)).fetchall()
            searches = [row["detail"] for row in plan if row["detail"].startswith("SEARCH")]
            for detail in searches:
                if "idx_workflow_topic" in detail:
                    assert "destination_uuid=? AND topic=?" in detail, (name, detail)
                    continue
                assert "sqlite_autoindex_" in detail, (name, detail)
                assert "workflow_uuid=?" in detail or "message_uuid=?" in detail, (name, detail)


@pytest.mark.parametrize("backend", ["postgres"])
@pytest.mark.parametrize("name", [*JOURNAL, *LONE_NAMES])
def test_the_journals_plans_search_by_primary_key(populated: Opened, name: str) -> None:
    plan = plan_of(populated.connection, name, JOURNAL_SETTINGS)
    touched = {
        node["Relation Name"]: node for node in nodes(plan) if "Scan" in node["Node Type"] and "Relation Name" in node
    }
    for node in nodes(plan):
        assert node["Node Type"] != "Seq Scan", plan
        assert node["Node Type"] not in ("Hash Join", "Merge Join"), plan
        if "Index Name" in node:
            assert node["Index Name"] in INDEXES, plan
            # The latest of a mailbox: from the end of what may be long.
            if node["Index Name"] == "idx_workflow_topic" and name.startswith("send"):
                assert node.get("Scan Direction") == "Backward", plan
        if node["Node Type"] == "Nested Loop":
            # What runs once per outer row must be a search in a table: two lists of a batch are never compared.
            inner = list(nodes(node["Plans"][1]))
            assert any("Index" in found["Node Type"] for found in inner), plan
            assert not any(found["Node Type"] in ("CTE Scan", "Function Scan") for found in inner), plan
    assert name in ("start_workflows", "start_workflow", "enqueue_workflow") or touched


@pytest.mark.parametrize("backend", ["postgres"])
@pytest.mark.parametrize("name", [*READS, *SERVICES])
def test_the_other_plans_of_a_filled_database_scan_no_table(opened: Opened, name: str) -> None:
    # Filled once for all parameters of this test: the tables are emptied before each.
    fill(opened.store)
    analyze(opened)
    plan = plan_of(opened.connection, name, "SET plan_cache_mode = force_generic_plan")
    for node in nodes(plan):
        large = node.get("Relation Name") in ("workflow_status", "operation_outputs", "streams")
        assert not (node["Node Type"] == "Seq Scan" and large), plan


# Filters that must not read the whole table.
SELECTIVE = [
    WorkflowFilter(workflow_ids=["w00001", "w00002"]),
    WorkflowFilter(parent_workflow_ids=["w00001"]),
    WorkflowFilter(forked_from=["w00001"]),
    WorkflowFilter(schedule_names=["nightly"]),
    WorkflowFilter(statuses=["PENDING"]),
    WorkflowFilter(statuses=["DELAYED"]),
    WorkflowFilter(statuses=["ERROR", "CANCELLED"]),
    WorkflowFilter(queue_names=["mail"], statuses=["ENQUEUED"]),
    WorkflowFilter(statuses=["PENDING", "ENQUEUED", "DELAYED"], queues_only=True, application_names=["test-app"]),
    WorkflowFilter(created_from_ms=2**60),
    WorkflowFilter(completed_from_ms=2**60),
    WorkflowFilter(workflow_id_prefixes=["w0000"]),
    WorkflowFilter(started_from_ms=1),
    WorkflowFilter(limit=10),
    WorkflowFilter(limit=10, newest_first=True, application_names=["test-app"]),
]


def test_listings_read_no_more_of_the_table_than_their_filters_say(opened: Opened) -> None:
    fill(opened.store)
    analyze(opened)
    lite = opened.store.backend == "sqlite"
    for wanted in SELECTIVE:
        name, first, asked = listing(wanted)
        if most_to_sort(asked, newest_first=False):
            asked["few"] = True
        text, parameters = choose_lines((SQLITE if lite else POSTGRES)[name].texts[0], first, asked)
        if lite:
            plan = opened.connection.execute(f"EXPLAIN QUERY PLAN {text}", parameters).fetchall()
            details = [row["detail"] for row in plan if row["detail"].startswith(("SCAN w", "SEARCH w"))]
            assert details, wanted
            # Whoever wants a page goes along the index of the order; a scan of a partial index reads what is asked for.
            order = ("workflow_status_created_at_index", "sqlite_autoindex")
            for detail in details:
                assert "INDEX" in detail, (wanted, details)
                assert wanted.limit or not detail.startswith("SCAN") or not any(i in detail for i in order), details
        else:
            cursor = psycopg.RawCursor(opened.connection, row_factory=dict_row)
            (row,) = cursor.execute(f"EXPLAIN (FORMAT JSON) {text}".encode(), parameters).fetchall()
            touched = [node for node in nodes(row["QUERY PLAN"][0]["Plan"]) if "Relation Name" in node]
            assert touched, wanted
            assert all(node["Node Type"] != "Seq Scan" for node in touched), (wanted, row)
    if lite:
        opened.read("DROP TABLE IF EXISTS sqlite_stat1")
        opened.read("DROP TABLE IF EXISTS sqlite_stat4")


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("column", ["completed_until_ms", "started_until_ms", "completed_from_ms", "started_from_ms"])
def test_sqlite_finds_many_in_their_order_and_does_not_sort_them(opened: Opened, column: str) -> None:
    """It has no statistics, and would take the index of the time."""
    name, first, asked = listing(WorkflowFilter(limit=20, **{column: 1}))  # type: ignore[arg-type]
    text, parameters = choose_lines(SQLITE[name].texts[0], first, asked)
    plan = opened.connection.execute(f"EXPLAIN QUERY PLAN {text}", parameters).fetchall()
    assert "SCAN w USING INDEX workflow_status_created_at_index" in [row["detail"] for row in plan]


def test_a_listing_runs_with_the_lines_it_asks_for_and_no_others() -> None:
    text, parameters = choose_lines(
        "SELECT a, b -- if payload\nWHERE TRUE\n  AND c = $3 -- if c\n  AND d = $4 -- if d\n"
        "  AND e -- unless d\n  AND f -- if d if c\n  AND $5 < d -- if d unless c\nLIMIT $1",
        [10],
        {"d": "value"},
    )
    assert text == "WHERE TRUE\n  AND d = $2\n  AND $3 < d\nLIMIT $1"
    assert parameters == (10, "value", "value")


# --- helpers


def parameter_count(text: str) -> int:
    return max((int(number) for number in re.findall(r"[?$](\d+)", text)), default=0)


class prepared:
    """A statement prepared for the duration of a block; gives the number of its parameters."""

    def __init__(self, connection: psycopg.Connection[Any], name: str) -> None:
        self.connection, self.name = connection, name

    def __enter__(self) -> int:
        self.connection.execute(f'PREPARE "{self.name}" AS {POSTGRES[self.name].texts[0]}'.encode())
        query = "SELECT parameter_types::text[] AS types FROM pg_prepared_statements WHERE name = %s"
        row = self.connection.execute(query, (self.name,)).fetchone()
        assert row is not None
        return len(row["types"])

    def __exit__(self, *_: object) -> None:
        self.connection.execute(f'DEALLOCATE "{self.name}"'.encode())


def plan_of(connection: psycopg.Connection[Any], name: str, settings: str) -> dict[str, Any]:
    """The generic plan of a statement under these settings."""
    connection.execute(settings.encode())
    try:
        with prepared(connection, name) as count:
            arguments = "(" + ", ".join(["NULL"] * count) + ")" if count else ""
            row = connection.execute(f'EXPLAIN (FORMAT JSON) EXECUTE "{name}"{arguments}'.encode()).fetchone()
    finally:
        connection.execute("RESET ALL")
        connection.execute("SET search_path = dbos")
    assert row is not None
    found = row["QUERY PLAN"]
    (explained,) = json.loads(found) if isinstance(found, str) else found
    plan: dict[str, Any] = explained["Plan"]
    return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)
