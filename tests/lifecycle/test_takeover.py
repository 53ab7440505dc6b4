"""The work of processes that are gone goes on in those that live, whatever their executor ids."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.api.runtime import state
from dbos.config import resolve
from dbos.engine import takeover
from dbos.engine.engine import Engine
from dbos.engine.registry import Registry
from dbos.engine.takeover import Takeover
from dbos.ids import new_process, tokens_of
from dbos.storage.database import SqlStore
from dbos.storage.opening import open_store
from tests.helpers import Gate, make_pending, relaunch, rows, status_row, wait_for_status, wait_until


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open()


@pytest.fixture
def neighbour(config: dict[str, Any], app: type[DBOS]) -> Iterator[tuple[SqlStore, str]]:
    """Another process on the database: its store, and its name."""
    store, name = open_store(resolve(config)), new_process()  # type: ignore[arg-type]
    assert store.join(name)
    yield store, name
    store.close()


def engine() -> Engine:
    assert state.instance is not None
    found = state.instance.engine
    assert found is not None
    return found


def give_to(database_url: str, workflow_id: str, process: str, **columns: Any) -> None:
    """Let a finished workflow be running in a process."""
    make_pending(database_url, workflow_id)
    for column, value in {"owner_xid": tokens_of(process)(), **columns}.items():
        rows(database_url, f"UPDATE workflow_status SET {column} = %s WHERE workflow_uuid = %s", value, workflow_id)


def look_again() -> None:
    """Wait until the service has looked twice from now on, so that it would have taken what it takes."""
    service, looks = engine().takeover, []
    find = engine().find_other_owners

    def count() -> list[str]:
        found = find()
        looks.append(found)
        return found

    engine().find_other_owners = count  # type: ignore[method-assign]
    for number in (1, 2, 3):
        service._must_look = True
        service.wake()
        wait_until(lambda: len(looks) >= number)
    engine().find_other_owners = find  # type: ignore[method-assign]


def test_a_workflow_whose_process_is_gone_is_finished_by_another_executor(
    app: type[DBOS], database_url: str, neighbour: tuple[SqlStore, str]
) -> None:
    bodies: list[str] = []

    @DBOS.step(name="first")
    def first() -> str:
        bodies.append("first")
        return "recorded"

    @DBOS.step(name="second")
    def second() -> str:
        bodies.append("second")
        return "second"

    @DBOS.workflow()
    def work() -> list[str]:
        return [first(), second()]

    with SetWorkflowID("orphan"):
        work()
    bodies.clear()
    rows(database_url, "DELETE FROM operation_outputs WHERE function_id = 2")
    gone = new_process()
    give_to(database_url, "orphan", gone, executor_id="gone-1")
    assert DBOS.retrieve_workflow("orphan").get_result() == ["recorded", "second"]
    assert bodies == ["second"]
    row = status_row(database_url, "orphan")
    assert (row["executor_id"], row["recovery_attempts"]) == ("test", 2)


def test_what_a_live_process_runs_is_left_to_it_also_by_a_launch_with_its_executor_id(
    app: type[DBOS], config: dict[str, Any], neighbour: tuple[SqlStore, str]
) -> None:
    url = config["system_database_url"]

    @DBOS.workflow()
    def work() -> str:
        return "done"

    for workflow_id in ("theirs", "of the dead"):
        with SetWorkflowID(workflow_id):
            work()
    store, alive = neighbour
    give_to(url, "theirs", alive)
    give_to(url, "of the dead", new_process())
    relaunch(config)
    assert wait_for_status(url, "of the dead", "SUCCESS")
    look_again()
    assert status_row(url, "theirs")["owner_xid"].startswith(alive)
    # Until it is gone.
    store.close()
    assert wait_for_status(url, "theirs", "SUCCESS")


@pytest.mark.parametrize(
    "columns",
    [
        {"application_version": "v0"},
        {"application_name": "another-app"},
        {"owner_xid": str(uuid.uuid4()), "executor_id": "another"},
    ],
    ids=["another version", "another application", "another release"],
)
def test_what_is_not_ours_to_run_or_to_judge_stays(
    app: type[DBOS], database_url: str, neighbour: tuple[SqlStore, str], columns: dict[str, str]
) -> None:
    @DBOS.workflow()
    def work() -> str:
        return "done"

    for workflow_id in ("foreign", "ours"):
        with SetWorkflowID(workflow_id):
            work()
    give_to(database_url, "foreign", new_process(), **columns)
    before = status_row(database_url, "foreign")
    give_to(database_url, "ours", new_process(), executor_id="another")
    assert wait_for_status(database_url, "ours", "SUCCESS")
    look_again()
    assert status_row(database_url, "foreign") == before


def test_the_place_of_a_dead_process_within_a_limit_is_free_again(
    app: type[DBOS], database_url: str, neighbour: tuple[SqlStore, str]
) -> None:
    order: list[str | None] = []

    @DBOS.workflow()
    def work() -> None:
        order.append(DBOS.workflow_id)

    DBOS.register_queue("single", global_concurrency=1)
    with SetWorkflowID("orphan"):
        DBOS.enqueue_workflow("single", work).get_result()
    order.clear()
    # Its process is alive, so far, and has the only place.
    store, alive = neighbour
    give_to(database_url, "orphan", alive, executor_id="gone-1", queue_name="single")
    with SetWorkflowID("next"):
        handle = DBOS.enqueue_workflow("single", work)
    look_again()
    assert status_row(database_url, "next")["status"] == "ENQUEUED"
    store.close()
    handle.get_result()
    # It keeps its age, so it comes before what was enqueued after it.
    assert order == ["orphan", "next"]


def test_what_destroy_cuts_off_is_free_for_others_at_once(
    app: type[DBOS], config: dict[str, Any], neighbour: tuple[SqlStore, str], gate: Gate
) -> None:
    url = config["system_database_url"]
    entered = threading.Event()

    @DBOS.workflow()
    def work() -> None:
        entered.set()
        gate.wait()

    with SetWorkflowID("cut off"):
        DBOS.start_workflow(work)
    assert entered.wait(60)
    store, _ = neighbour
    (owner,) = store.find_owners("test-app", "v1")
    assert store.find_dead([owner], patient=False) == []
    DBOS.destroy()
    # The server takes a moment to notice that a connection was closed.
    wait_until(lambda: store.find_dead([owner], patient=False) == [owner])
    assert store.requeue_dead([owner], "v1", "test-app") == ["_dbos_internal_queue"]
    assert status_row(url, "cut off")["status"] == "ENQUEUED"


def test_tokens_of_starts_and_claims_carry_the_process(app: type[DBOS], database_url: str, gate: Gate) -> None:
    @DBOS.workflow()
    def work() -> None:
        gate.wait()

    DBOS.register_queue("any")
    handles = [DBOS.start_workflow(work), DBOS.enqueue_workflow("any", work)]
    process = engine().process
    assert process is not None
    for handle in handles:
        wait_for_status(database_url, handle.workflow_id, "PENDING")
        assert status_row(database_url, handle.workflow_id)["owner_xid"].startswith(process)
    gate.open()
    for handle in handles:
        handle.get_result()


# --- the service by itself


class Database:
    """What the service asks of a store."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.shared = False
        self.alive: list[str] = []
        self.dead: list[str] = []
        self.looks = 0
        self.taken: list[list[str]] = []
        self.look_ms = 0
        self.now_ms_value = 1_000_000

    def now_ms(self) -> int:
        return self.now_ms_value

    def is_shared(self) -> bool:
        return self.shared

    def find_owners(self, *identity: str) -> list[str]:
        self.looks += 1
        self.now_ms_value += self.look_ms
        return self.alive + self.dead

    def find_dead(self, processes: list[str], *, patient: bool) -> list[str]:
        assert patient
        return [process for process in processes if process in self.dead]

    def requeue_dead(self, dead: list[str], *identity: str) -> list[str]:
        self.taken.append(dead)
        return ["queue"] * len(dead)


@pytest.fixture
def database(backend: str) -> Database:
    return Database(backend)


@pytest.fixture
def service(database: Database, config: dict[str, Any]) -> Takeover:
    made: Any = Engine(
        resolve(config),  # type: ignore[arg-type]
        Registry(),
        database,  # type: ignore[arg-type]
        application_version="v1",
        executor_id="test",
        clock=database,  # type: ignore[arg-type]
    )
    made.process = new_process()
    service: Takeover = made.takeover
    return service


def test_a_process_that_has_the_database_to_itself_looks_once(database: Database, service: Takeover) -> None:
    for _ in range(5):
        assert service.run_once() == service.interval_seconds
    assert database.looks == 1
    database.shared = True
    service.run_once()
    service.run_once()
    assert database.looks == 3
    assert database.taken == []


def test_it_looks_on_as_long_as_another_process_owns_work(database: Database, service: Takeover) -> None:
    # That one may not have written anything since this process has come.
    database.alive = ["another"]
    for looks in (1, 2, 3):
        service.run_once()
        assert database.looks == looks
    database.alive = []
    service.run_once()
    service.run_once()
    assert database.looks == 4


def test_a_process_is_taken_for_dead_when_it_has_been_seen_dead_for_long_enough(
    database: Database, service: Takeover
) -> None:
    sure_ms = int(takeover.SURE_SECONDS[database.backend] * 1000)
    database.dead = ["dead", "only disconnected"]
    if sure_ms:
        assert service.run_once() == sure_ms / 1000
        assert database.taken == []
        database.dead = ["dead"]
        database.now_ms_value += sure_ms
    service.run_once()
    assert database.taken == [["dead"] if sure_ms else ["dead", "only disconnected"]]
    # Seen alive in between, it begins anew.
    if sure_ms:
        database.dead = ["only disconnected"]
        service.run_once()
        assert len(database.taken) == 1


def test_after_it_had_to_connect_anew_a_process_judges_nobody_for_a_while(
    database: Database, service: Takeover
) -> None:
    database.dead = ["connects anew, too"]
    service.note_connected()
    service.note_connected()
    assert service.run_once() == takeover.PATIENCE_SECONDS
    database.now_ms_value += 1000
    assert service.run_once() == takeover.PATIENCE_SECONDS - 1
    assert database.looks == 0
    database.now_ms_value += int(takeover.PATIENCE_SECONDS * 1000)
    service.run_once()
    assert database.looks == 1


def test_looks_that_take_long_are_rare(database: Database, service: Takeover) -> None:
    database.look_ms = 300
    assert service.run_once() == pytest.approx(0.3 / takeover.SHARE_OF_TIME)


def test_a_look_that_failed_is_made_again(database: Database, service: Takeover) -> None:
    database.find_owners = lambda *identity: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        service.run_once()
    del database.find_owners  # type: ignore[method-assign]
    service.run_once()
    assert database.looks == 1


def test_a_process_that_cannot_be_seen_judges_nobody(database: Database, service: Takeover) -> None:
    service.engine.process = None
    assert service.run_once() == 3600.0
    assert database.looks == 0
