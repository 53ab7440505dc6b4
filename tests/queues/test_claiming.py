"""Claiming: who takes what, in which order, within which limits (03 section 6)."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import psycopg
import pytest

from dbos import DBOS, SetEnqueueOptions
from dbos.api.runtime import state
from dbos.engine.engine import Engine
from tests.helpers import Gate, relaunch, rows, status_row, wait_for_status, wait_until

Config = dict[str, Any]


class Meter:
    """How many run at the same time, at most, over all and by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.order: list[Any] = []

    def run(self, value: Any, key: str = "all", seconds: float = 0.005) -> Any:
        with self._lock:
            self.order.append(value)
            self._now[key] += 1
            self.most[key] = max(self.most[key], self._now[key])
        time.sleep(seconds)  # the work: overlap shows only while it lasts
        with self._lock:
            self._now[key] -= 1
        return value


def engine_of_app() -> Engine:
    assert state.instance is not None
    assert state.instance.engine is not None
    return state.instance.engine


def declare(meter: Meter, **options: Any) -> Any:
    @DBOS.workflow(name="metered")
    def metered(value: Any, key: str = "all") -> Any:
        return meter.run(value, key, **options)

    return metered


# --- order


def test_the_oldest_starts_first(app: type[DBOS]) -> None:
    """03 R72, R85, and section 15, 18: a stable order within a millisecond."""
    meter = Meter()
    work = declare(meter, seconds=0)
    queue = DBOS.register_queue("serial", global_concurrency=0)
    handles = [DBOS.enqueue_workflow("serial", work, number) for number in range(60)]
    queue.set_global_concurrency(1)
    assert [handle.get_result() for handle in handles] == list(range(60))
    assert meter.order == list(range(60))
    assert meter.most["all"] == 1


def test_a_lower_priority_number_starts_first_and_none_before_all(app: type[DBOS]) -> None:
    """03 R60, R72."""
    meter = Meter()
    work = declare(meter, seconds=0)
    queue = DBOS.register_queue("serial", global_concurrency=0)
    handles = []
    for priority in (3, None, 1, 2, None, 1):
        with SetEnqueueOptions(priority=priority):
            handles.append(DBOS.enqueue_workflow("serial", work, (priority or 0, len(handles))))
    queue.set_global_concurrency(1)
    for handle in handles:
        handle.get_result()
    assert meter.order == sorted(meter.order)


def test_what_this_process_cannot_run_does_not_block_what_stands_behind(app: type[DBOS], database_url: str) -> None:
    """03 R71, R72; section 15, 5: other versions, other applications, unknown functions."""
    work = declare(Meter())
    queue = DBOS.register_queue("mail", global_concurrency=0)
    with SetEnqueueOptions(app_version="v9"):
        other_version = DBOS.enqueue_workflow("mail", work, 1)
    other_application = DBOS.enqueue_workflow_with_options(
        {"workflow_name": "metered", "queue_name": "mail", "application_name": "other-app"}, 2
    )
    unknown = DBOS.enqueue_workflow_with_options({"workflow_name": "unknown", "queue_name": "mail"}, 3)
    mine = DBOS.enqueue_workflow("mail", work, 4)
    queue.set_global_concurrency(1)
    assert mine.get_result() == 4
    for handle in (other_version, other_application, unknown):
        row = status_row(database_url, handle.workflow_id)
        assert (row["status"], row["owner_xid"], row["recovery_attempts"]) == ("ENQUEUED", None, 0)


# --- limits in one process


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({"worker_concurrency": 3}, 3),
        ({"global_concurrency": 2}, 2),
        ({"global_concurrency": 4, "worker_concurrency": 2}, 2),
    ],
)
def test_never_more_run_at_once_than_the_limit_and_as_many(app: type[DBOS], limits: dict[str, int], most: int) -> None:
    """03 R75; section 15, 2."""
    meter = Meter()
    work = declare(meter, seconds=0.02)
    DBOS.register_queue("mail", **limits)  # type: ignore[arg-type]
    handles = [DBOS.enqueue_workflow("mail", work, number) for number in range(20)]
    assert [handle.get_result() for handle in handles] == list(range(20))
    assert meter.most["all"] == most


def test_a_process_claims_no_more_than_its_threads_can_begin(config: Config, database_url: str) -> None:
    """03 R77; section 15, 2 and 3: what waits for a thread stays in the queue, where others find it."""
    gate = Gate()
    DBOS(config=config | {"max_executor_threads": 3})

    @DBOS.workflow()
    def work(value: int) -> int:
        gate.wait()
        return value

    DBOS.launch()
    DBOS.register_queue("mail", worker_concurrency=5)
    handles = [DBOS.enqueue_workflow("mail", work, number) for number in range(8)]

    def count(status: str) -> int:
        return len(rows(database_url, "SELECT 1 FROM workflow_status WHERE status = %s", status))

    wait_until(lambda: count("PENDING") == 3)
    assert count("ENQUEUED") == 5
    gate.open()
    assert [handle.get_result() for handle in handles] == list(range(8))
    DBOS.destroy(destroy_registry=True)


def test_partitions_have_limits_of_their_own(app: type[DBOS]) -> None:
    """03 R61, R75, R83, R84."""
    gate, lock, now, most = Gate(), threading.Lock(), Counter[str](), Counter[str]()

    @DBOS.workflow(name="held")
    def held(value: int, key: str) -> int:
        with lock:
            now[key] += 1
            most[key] = max(most[key], now[key])
            most["all"] = max(most["all"], now.total())
        gate.wait()
        with lock:
            now[key] -= 1
        return value

    handles = []
    for number in range(40):
        with SetEnqueueOptions(queue_partition_key=f"key {number % 4}"):
            handles.append(DBOS.enqueue_workflow("mail", held, number, str(number % 4)))
    # Only now, so that every partition has more waiting than may run.
    DBOS.register_queue("mail", partition_concurrency=2, global_concurrency=5)
    # Five of four partitions: two of one of them.
    wait_until(lambda: now.total() == 5)
    assert max(now.values()) == 2
    gate.open()
    assert [handle.get_result() for handle in handles] == list(range(40))
    assert most.pop("all") == 5
    assert max(most.values()) == 2


def test_a_partition_runs_one_at_a_time_in_order(app: type[DBOS]) -> None:
    """03 R85."""
    meter = Meter()
    work = declare(meter, seconds=0)
    DBOS.register_queue("mail", partition_concurrency=1)
    handles = []
    for number in range(40):
        with SetEnqueueOptions(queue_partition_key=str(number % 2)):
            handles.append(DBOS.enqueue_workflow("mail", work, number, key=str(number % 2)))
    for handle in handles:
        handle.get_result()
    assert [number for number in meter.order if number % 2 == 0] == list(range(0, 40, 2))
    assert [number for number in meter.order if number % 2 == 1] == list(range(1, 40, 2))
    assert max(meter.most.values()) == 1


def test_without_a_partition_key_nothing_starts_on_a_partitioned_queue(app: type[DBOS], database_url: str) -> None:
    """03 R61; the empty text is a key like any other."""
    work = declare(Meter())
    DBOS.register_queue("mail", partition_concurrency=1)
    without = DBOS.enqueue_workflow("mail", work, 1)
    with SetEnqueueOptions(queue_partition_key=""):
        assert DBOS.enqueue_workflow("mail", work, 2).get_result() == 2
    assert status_row(database_url, without.workflow_id)["status"] == "ENQUEUED"
    queue = DBOS.retrieve_queue("mail")
    assert queue is not None
    queue.set_partition_concurrency(None)  # turning partitions off (R23)
    assert without.get_result() == 1


@pytest.mark.parametrize("partitioned", [False, True])
def test_a_rate_limit_holds_in_every_window(app: type[DBOS], database_url: str, partitioned: bool) -> None:
    """03 R80, R91."""
    work = declare(Meter(), seconds=0)
    limiter: Any = {"limit": 4, "period": 0.3}
    DBOS.register_queue("mail", **{"partition_limiter" if partitioned else "limiter": limiter})
    handles = []
    for number in range(14):
        with SetEnqueueOptions(queue_partition_key="one" if partitioned else None):
            handles.append(DBOS.enqueue_workflow("mail", work, number))
    for handle in handles:
        handle.get_result()
    found = rows(database_url, "SELECT started_at_epoch_ms AS at, rate_limited FROM workflow_status ORDER BY 1")
    assert all(row["rate_limited"] for row in found)
    starts = [row["at"] for row in found]
    for early, late in zip(starts, starts[4:]):
        assert late - early >= 300
    if not partitioned:
        # A window is used as soon as it opens: three of them for the last of 14, not polls of a second.
        assert starts[-1] - starts[0] < 1500


# --- wake-ups


def test_a_start_does_not_wait_for_a_poll(app: type[DBOS]) -> None:
    """03 R65, R70; section 15, 1: with an interval of a minute a poll would be noticed."""
    meter = Meter()
    work = declare(meter, seconds=0)
    DBOS.register_queue("serial", global_concurrency=1, polling_interval_sec=60)
    handles = [DBOS.enqueue_workflow("serial", work, number) for number in range(20)]
    began = time.monotonic()
    for handle in handles:
        handle.get_result()
    with SetEnqueueOptions(delay_seconds=0.1):
        DBOS.enqueue_workflow("serial", work, 20).get_result()
    assert time.monotonic() - began < 30


def test_a_row_that_nobody_announced_is_found(app: type[DBOS], database_url: str) -> None:
    """03 R67: the safety net, since other clients write rows without a word."""
    work = declare(Meter())
    queue = DBOS.register_queue("mail", global_concurrency=0)
    handle = DBOS.enqueue_workflow("mail", work, 1)
    wait_until(lambda: status_row(database_url, handle.workflow_id)["status"] == "ENQUEUED")
    rows(database_url, "UPDATE queues SET concurrency = 1, updated_at = updated_at + 1")
    assert handle.get_result() == 1
    assert queue.global_concurrency == 1


def test_a_recovered_workflow_goes_back_to_its_queue_and_its_limits(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """03 R109, R110, R111."""
    gate = Gate()
    began: list[str] = []

    @DBOS.step()
    def note(value: str) -> str:
        began.append(value)
        return value

    @DBOS.workflow()
    def work(value: str) -> str:
        note(value)
        gate.wait()
        return value

    DBOS.register_queue("serial", global_concurrency=1)
    handles = [DBOS.enqueue_workflow("serial", work, value) for value in ("first", "second")]
    wait_until(lambda: began == ["first"])
    relaunch(config)
    wait_for_status(database_url, handles[0].workflow_id, "PENDING")
    gate.open()
    assert [DBOS.get_result(handle.workflow_id) for handle in handles] == ["first", "second"]
    assert began == ["first", "second"]  # the recorded step was not repeated
    row = status_row(database_url, handles[0].workflow_id)
    assert (row["queue_name"], row["recovery_attempts"]) == ("serial", 2)


def test_moving_the_start_of_a_delayed_workflow(app: type[DBOS], database_url: str) -> None:
    """03 section 8: set_workflow_delay, R105."""
    work = declare(Meter())
    DBOS.register_queue("mail")
    with SetEnqueueOptions(delay_seconds=3600):
        handle = DBOS.enqueue_workflow("mail", work, 1)
    before = status_row(database_url, handle.workflow_id)["delay_until_epoch_ms"]
    DBOS.set_workflow_delay(handle.workflow_id, delay_seconds=7200)
    assert 3_590_000 < status_row(database_url, handle.workflow_id)["delay_until_epoch_ms"] - before < 3_610_000
    for wrong in ({}, {"delay_seconds": 1, "delay_until_epoch_ms": 1}, {"delay_seconds": -1}):
        with pytest.raises(Exception, match="delay"):
            DBOS.set_workflow_delay(handle.workflow_id, **wrong)
    DBOS.set_workflow_delay(handle.workflow_id, delay_until_epoch_ms=0)
    assert handle.get_result() == 1
    DBOS.set_workflow_delay(handle.workflow_id, delay_seconds=5)  # not delayed any more: nothing
    DBOS.set_workflow_delay("unknown", delay_seconds=5)
    assert status_row(database_url, handle.workflow_id)["status"] == "SUCCESS"


# --- what wakes a queue that is held back. A poll would take a minute.


@pytest.mark.parametrize(
    "limits", [{"limiter": {"limit": 2, "period": 0.3}}, {"partition_limiter": {"limit": 1, "period": 0.3}}]
)
def test_the_window_of_a_rate_limit_wakes_its_queue(app: type[DBOS], limits: dict[str, Any]) -> None:
    """03 R80: a free window is spent at once."""
    work = declare(Meter())
    handles = []
    for number in range(8):
        with SetEnqueueOptions(queue_partition_key=f"key {number % 2}"):
            handles.append(DBOS.enqueue_workflow("mail", work, number))
    DBOS.register_queue("mail", polling_interval_sec=60, **limits)  # type: ignore[arg-type]
    began = time.monotonic()
    assert [handle.get_result() for handle in handles] == list(range(8))
    # Four windows, of which each lets two start.
    assert 0.9 <= time.monotonic() - began < 20


def test_a_thread_that_sleeps_makes_room_for_others(config: Config) -> None:
    """03 section 15, 2: nothing but the sleeping workflow tells that another could start."""
    DBOS(config=config | {"max_executor_threads": 1})
    ran = threading.Event()

    @DBOS.workflow()
    def sleeper() -> None:
        DBOS.sleep(3600)

    @DBOS.workflow()
    def work() -> None:
        ran.set()

    DBOS.launch()
    for function in (sleeper, work):
        DBOS.enqueue_workflow("mail", function)
    DBOS.register_queue("mail", polling_interval_sec=60)
    assert ran.wait(20)
    DBOS.destroy(destroy_registry=True)


@pytest.mark.parametrize("backend", ["postgres"])
def test_what_was_passed_over_in_a_claim_is_claimed_soon_after(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes claim at the same moment: whoever comes second does not wait for the next interval."""
    engine = engine_of_app()
    claim, answers = engine.store.claim_workflows, []

    def noted(queue: Any, *given: Any) -> Any:
        claimed = claim(queue, *given)
        if queue.name == "parts":
            answers.append((len(claimed), claimed.has_passed_over, time.monotonic()))
        return claimed

    monkeypatch.setattr(engine.store, "claim_workflows", noted)
    work = declare(Meter())
    with SetEnqueueOptions(queue_partition_key="a"):
        DBOS.enqueue_workflow("parts", work, 0)
    with psycopg.connect(database_url, options="-c search_path=dbos") as other:
        other.execute("SELECT FROM workflow_status FOR UPDATE")
        DBOS.register_queue("parts", partition_worker_concurrency=1, polling_interval_sec=3600)
        wait_until(lambda: len(answers) == 5)
        times = [answer[2] for answer in answers[1:]]
        pauses = [times[number + 1] - times[number] for number in range(3)]
        assert [pause >= 0.004 * 2**number for number, pause in enumerate(pauses)] == [True] * 3, pauses
    wait_until(lambda: answers[-1][0] == 1)
    assert {answer[:2] for answer in answers[:-1]} == {(0, True)}
    assert answers[-1][:2] == (1, False)
    count = len(answers)
    # Nothing is repeated where nothing was passed over.
    wait_until(lambda: not engine.running())
    wait_until(lambda: len(answers) == count + 1)
    assert "parts" not in engine.dispatcher._windows_ms


def test_the_end_of_a_workflow_looks_only_at_its_own_queue(app: type[DBOS], monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()

    @DBOS.workflow()
    def blocked() -> None:
        gate.wait()

    work = declare(Meter())
    DBOS.register_queue("held back", worker_concurrency=1, polling_interval_sec=60)
    DBOS.register_queue("mail", worker_concurrency=1, polling_interval_sec=60)
    held = [DBOS.enqueue_workflow("held back", blocked) for _ in range(2)]
    engine = engine_of_app()
    wait_until(lambda: len(engine.running()) == 1)
    asked: list[str] = []
    claim = engine.store.claim_workflows

    def counted(queue: Any, *given: Any) -> Any:
        asked.append(queue.name)
        return claim(queue, *given)

    monkeypatch.setattr(engine.store, "claim_workflows", counted)
    handles = [DBOS.enqueue_workflow("mail", work, number) for number in range(20)]
    assert [handle.get_result() for handle in handles] == list(range(20))
    assert "held back" not in asked
    gate.open()
    for handle in held:
        handle.get_result()


def test_looking_for_work_passes_over_what_this_process_cannot_run(
    app: type[DBOS], monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(Meter())
    found: list[str] = []
    engine = engine_of_app()
    find = engine.store.find_waiting_queues

    def noted(*given: Any) -> Any:
        found.extend(names := find(*given))
        return names

    monkeypatch.setattr(engine.store, "find_waiting_queues", noted)
    foreign: list[Any] = [
        {"workflow_name": "metered", "queue_name": "other version", "app_version": "v2"},
        {"workflow_name": "unknown", "queue_name": "other function"},
        {"workflow_name": "metered", "queue_name": "other application", "application_name": "other-app"},
    ]
    for options in foreign:
        DBOS.enqueue_workflow_with_options(options, 1)
        DBOS.register_queue(options["queue_name"])
    DBOS.register_queue("mine", global_concurrency=0)
    DBOS.enqueue_workflow_with_options({"workflow_name": "metered", "queue_name": "mine"}, 1)
    wait_until(lambda: found.count("mine") >= 2)
    assert set(found) == {"mine"}
