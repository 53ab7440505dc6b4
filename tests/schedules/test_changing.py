"""Changes of schedules between ticks, trouble at a tick, runs by hand (03 sections 10.3 and 10.4)."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from dbos import DBOS
from dbos.engine.scheduler import RUNS_AT_ONCE, Scheduler
from dbos.error import DBOSException
from dbos.storage.store import StoreUnavailable
from tests.helpers import PATIENCE_SECONDS, relaunch, rows, status_row, wait_until
from tests.schedules.recording import NOON, at, create, far, runs, schedule_row, stepped, the_engine

Config = dict[str, Any]

# --- changes


def test_a_change_counts_at_once_in_this_process(app: type[DBOS]) -> None:
    """03 section 15.11: no wait for the next look."""
    ran = threading.Event()

    @DBOS.workflow()
    def tick(when: datetime, context: Any) -> None:
        ran.set()

    engine = the_engine()
    wait_until(lambda: engine.scheduler._looked_at_ms > 0)
    before = engine.scheduler._looked_at_ms
    create(live=True, workflow_fn=tick, schedule=far())
    assert engine.scheduler._looked_at_ms != before
    DBOS.apply_schedules([{"schedule_name": "s", "workflow_fn": tick, "schedule": "* * * * * *"}])
    assert ran.wait(PATIENCE_SECONDS)


@pytest.mark.parametrize("change", ["pause", "delete", "replace"])
def test_a_tick_of_a_schedule_that_another_process_has_just_changed_does_not_run(
    app: type[DBOS], database_url: str, change: str
) -> None:
    """The firing transaction looks at the row, so there is no window in which a stale definition fires."""
    create()
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:09:59.800")
        if change == "pause":
            rows(database_url, "UPDATE workflow_schedules SET status = 'PAUSED'")
        elif change == "delete":
            rows(database_url, "DELETE FROM workflow_schedules")
        else:
            rows(database_url, "UPDATE workflow_schedules SET schedule = '5 * * * *'")
        scheduler.at("2026-01-01T12:10:00.100")
        assert runs(database_url) == []
        scheduler.at("2026-01-01T12:10:02")
        scheduler.at("2026-01-01T13:06:00")
    assert runs(database_url) == (at("13:05") if change == "replace" else [])


def test_a_changed_definition_begins_to_count_anew_and_other_changes_do_not(app: type[DBOS], database_url: str) -> None:
    """03 R132."""
    create()
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        rows(database_url, "UPDATE workflow_schedules SET automatic_backfill = TRUE, application_name = NULL, "
                           "last_fired_at = '2020-01-01T00:00:00+00:00'")  # fmt: skip
        scheduler.at("2026-01-01T12:10")
        assert runs(database_url) == at("12:10")
        rows(database_url, "UPDATE workflow_schedules SET schedule = '*/7 * * * *'")
        scheduler.at("2026-01-01T12:30")
        assert runs(database_url) == at("12:10")
        scheduler.at("2026-01-01T12:35")
    assert runs(database_url) == at("12:10", "12:35")


def test_a_paused_schedule_does_not_fire_and_a_resumed_one_goes_on_from_then(
    app: type[DBOS], database_url: str
) -> None:
    create()
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:10")
        DBOS.pause_schedule("s")
        scheduler.at("2026-01-01T12:30")
        DBOS.resume_schedule("s")
        scheduler.at("2026-01-01T12:35")
        assert runs(database_url) == []
        scheduler.at("2026-01-01T12:40")
    assert runs(database_url) == at("12:40")


def test_deleting_a_schedule_keeps_its_runs_and_a_new_one_of_the_name_does_not_repeat_them(
    app: type[DBOS], database_url: str
) -> None:
    """03 R142."""
    create()
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:10")
        before = status_row(database_url, f"sched-s-{at('12:10')[0]}")["creator_xid"]
        DBOS.delete_schedule("s")
        create()
        handles = DBOS.backfill_schedule("s", datetime(2026, 1, 1, 12), datetime(2026, 1, 1, 12, 15))
    assert [handle.workflow_id for handle in handles] == [f"sched-s-{at('12:10')[0]}"]
    assert status_row(database_url, f"sched-s-{at('12:10')[0]}")["creator_xid"] == before


# --- trouble


def test_a_broken_schedule_is_reported_once_marked_and_left_out_while_the_others_go_on(
    app: type[DBOS], database_url: str, dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    """03 section 14: in the reference one of these stops all."""
    for name in ("context", "cron", "good", "never", "zone"):
        create(name)
    for name, column, value in (
        ("context", "context", "no pickle"),
        ("zone", "cron_timezone", "Mars/Olympus"),
        ("cron", "schedule", "not cron"),
        ("never", "schedule", "0 0 31 2 *"),
    ):
        rows(database_url, f"UPDATE workflow_schedules SET {column} = %s WHERE schedule_name = %s", value, name)
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:10")
        scheduler.at("2026-01-01T12:20")
        assert runs(database_url, "good") == at("12:10", "12:20")
        problems = {found["schedule_name"]: found["problem"] for found in DBOS.list_schedules()}
        assert {name for name, problem in problems.items() if problem} == {"context", "cron", "zone"}
        assert "Mars/Olympus" in (problems["zone"] or "")
        for name in ("context", "cron", "zone"):
            assert caplog.text.count(f"Schedule {name!r} cannot be run by this process") == 1
        # It is taken up again when it is mended.
        rows(database_url, "UPDATE workflow_schedules SET cron_timezone = NULL WHERE schedule_name = 'zone'")
        scheduler.at("2026-01-01T12:21")
        scheduler.at("2026-01-01T12:30")
        found = DBOS.get_schedule("zone")
        assert found is not None
        assert found["problem"] is None
    assert runs(database_url, "zone") == at("12:30")


def test_a_run_that_the_database_refuses_does_not_stop_the_others(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "bad", "c"):
        create(name)
    store = the_engine().store
    fire = store.fire_schedules

    def picky(given: Any, now_ms: int) -> None:
        if any(run.schedule.name == "bad" for run in given):
            raise ValueError("not this one")
        fire(given, now_ms)

    monkeypatch.setattr(store, "fire_schedules", picky)
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:10")
        found = DBOS.get_schedule("bad")
        assert found is not None
        assert "not this one" in (found["problem"] or "")
    assert (runs(database_url, "a"), runs(database_url, "bad"), runs(database_url, "c")) == (
        at("12:10"),
        [],
        at("12:10"),
    )


def test_ticks_survive_a_database_that_does_not_answer(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """03 R139. Also when the answer was lost after the commit: the tick is there once."""
    create()
    store = the_engine().store
    fire, failures = store.fire_schedules, ["before", "after"]

    def failing(given: Any, now_ms: int) -> None:
        failure = failures.pop(0) if failures else None
        if failure == "before":
            raise StoreUnavailable("simulated")
        fire(given, now_ms)
        if failure == "after":
            raise StoreUnavailable("simulated")

    monkeypatch.setattr(store, "fire_schedules", failing)
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                scheduler.at("2026-01-01T12:10")
        scheduler.at("2026-01-01T12:11")
    assert runs(database_url) == at("12:10")


def test_two_processes_fire_each_tick_once_and_the_last_tick_never_goes_back(
    app: type[DBOS], database_url: str
) -> None:
    """03 R137, R138, section 15.12."""
    create()
    engine = the_engine()
    with stepped(NOON) as scheduler:
        late = Scheduler(engine)
        late.run_once()
        scheduler.at("2026-01-01T12:01")
        for time in ("12:10", "12:20", "12:30"):
            scheduler.at(f"2026-01-01T{time}")
        tokens = {row["creator_xid"] for row in rows(database_url, "SELECT creator_xid FROM workflow_status")}
        # The other one was paused meanwhile; all it wants to do is done.
        while late.run_once() <= 0:
            pass
        assert schedule_row(database_url, "s")["last_fired_at"] == at("12:30")[0]
    assert runs(database_url) == at("12:10", "12:20", "12:30")
    assert {row["creator_xid"] for row in rows(database_url, "SELECT creator_xid FROM workflow_status")} == tokens


# --- by hand


def test_trigger_runs_a_schedule_now_also_a_paused_one(app: type[DBOS], database_url: str) -> None:
    """03 R143."""
    seen: list[Any] = []

    @DBOS.workflow()
    def tick(when: datetime, context: Any) -> None:
        seen.append((when, context))

    create(workflow_fn=tick, schedule=far(), context="c", cron_timezone="Europe/Berlin")
    DBOS.pause_schedule("s")
    handle = DBOS.trigger_schedule("s")
    handle.get_result()
    ((when, context),) = seen
    assert context == "c"
    assert when.utcoffset() == timedelta(0)
    assert handle.workflow_id == f"sched-s-trigger-{when.isoformat(timespec='microseconds')}"
    assert status_row(database_url, handle.workflow_id)["schedule_name"] == "s"
    assert schedule_row(database_url, "s")["last_fired_at"] is None


def test_backfill_enqueues_each_tick_between_two_times_once(app: type[DBOS], database_url: str) -> None:
    """03 R144."""
    create(schedule="0 * * * *")
    DBOS.pause_schedule("s")
    start, end = datetime(2026, 1, 1, 0), datetime(2026, 1, 1, 4)
    ids = [handle.workflow_id for handle in DBOS.backfill_schedule("s", start, end)]
    assert ids == [f"sched-s-{time}" for time in at("01:00", "02:00", "03:00")]
    again = DBOS.backfill_schedule("s", start, end.replace(tzinfo=timezone.utc))
    assert [handle.workflow_id for handle in again] == ids
    assert runs(database_url) == at("01:00", "02:00", "03:00")
    for handle in again:
        handle.get_result()
    assert DBOS.backfill_schedule("s", end, start) == []
    assert schedule_row(database_url, "s")["last_fired_at"] is None
    with pytest.raises(DBOSException, match="is a datetime"):
        DBOS.backfill_schedule("s", "2026-01-01", end)  # type: ignore[arg-type]


def test_a_long_backfill_is_written_in_parts(app: type[DBOS], database_url: str) -> None:
    DBOS.register_queue("q", worker_concurrency=0)
    create(schedule="* * * * *", queue_name="q")
    handles = DBOS.backfill_schedule("s", datetime(2026, 1, 1), datetime(2026, 1, 2))
    assert len(handles) == 24 * 60 - 1 > RUNS_AT_ONCE
    assert len(runs(database_url)) == len(handles)


def test_schedules_go_on_after_a_restart(config: Config, database_url: str) -> None:
    DBOS(config=config)
    ran = threading.Event()

    @DBOS.workflow()
    def tick(when: datetime, context: Any) -> None:
        ran.set()

    DBOS.launch()
    create(live=True, workflow_fn=tick, schedule="* * * * * *")
    assert ran.wait(PATIENCE_SECONDS)
    DBOS.destroy()
    count = len(runs(database_url))
    relaunch(config)
    wait_until(lambda: len(runs(database_url)) > count)
    DBOS.destroy(destroy_registry=True)
