"""When schedules fire, and what each tick enqueues (03 sections 10.3 and 10.4)."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from dbos import DBOS
from dbos.engine.scheduler import RUNS_AT_ONCE, Scheduler
from dbos.error import DBOSException
from dbos.serialization import DBOSPortableJSONSerializer
from dbos.storage.store import StoreUnavailable
from tests.helpers import PATIENCE_SECONDS, relaunch, rows, status_row, wait_until
from tests.schedules.recording import declare, far, runs, schedule_row, stepped, the_engine

Config = dict[str, Any]
NOON = "2026-01-01T12:00:00"


def create(name: str = "s", schedule: str = "*/10 * * * *", *, live: bool = False, **given: Any) -> None:
    """Make a schedule. Unless it shall be live, the scheduler of the process rests from now on."""
    if not live:
        the_engine().scheduler.stop()
    DBOS.create_schedule(**{"schedule_name": name, "workflow_fn": declare(), "schedule": schedule, **given})


def at(*times: str) -> list[str]:
    return [f"2026-01-01T{time}:00+00:00" for time in times]


# --- a tick


def test_a_tick_runs_the_workflow_with_its_nominal_time_and_the_context(app: type[DBOS], database_url: str) -> None:
    """03 R129, R134 to R136."""
    seen: list[Any] = []
    ran = threading.Event()

    @DBOS.workflow()
    def tick(when: datetime, context: Any) -> None:
        seen.append((when, context))
        ran.set()

    create(live=True, workflow_fn=tick, schedule="* * * * * *", context={"a": [1]}, cron_timezone="Asia/Kathmandu")
    assert ran.wait(PATIENCE_SECONDS)
    DBOS.pause_schedule("s")
    when, context = seen[0]
    assert context == {"a": [1]}
    assert (when.utcoffset(), when.microsecond) == (timedelta(hours=5, minutes=45), 0)
    # Not long after the nominal time, and never before it.
    workflow_id = f"sched-s-{when.isoformat()}"
    row = status_row(database_url, workflow_id)
    assert 0 <= row["created_at"] - when.timestamp() * 1000 < 30_000
    assert DBOS.retrieve_workflow(workflow_id).get_result() is None


def test_the_row_of_a_run(app: type[DBOS], database_url: str) -> None:
    """03 R39, R136."""
    DBOS.register_queue("q", worker_concurrency=0)
    create(queue_name="q")
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:05")
        assert runs(database_url) == []
        scheduler.at("2026-01-01T12:10")
    assert runs(database_url) == at("12:10")
    row = status_row(database_url, "sched-s-2026-01-01T12:10:00+00:00")
    expected = {
        "status": "ENQUEUED", "name": "recorded", "queue_name": "q", "schedule_name": "s", "recovery_attempts": 0,
        "application_version": "v1", "application_name": "test-app", "executor_id": None, "application_id": None,
        "parent_workflow_id": None, "authenticated_user": None, "authenticated_roles": None, "assumed_role": None,
        "workflow_timeout_ms": None, "workflow_deadline_epoch_ms": None, "serialization": None, "owner_xid": None,
        "started_at_epoch_ms": None, "priority": 0,
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected
    assert schedule_row(database_url, "s")["last_fired_at"] == "2026-01-01T12:10:00+00:00"


def test_a_run_is_pinned_to_the_latest_version_at_the_moment_of_the_tick(app: type[DBOS], database_url: str) -> None:
    """03 R136."""
    DBOS.register_queue("q", worker_concurrency=0)
    create(queue_name="q")
    store, later_ms = the_engine().store, the_engine().clock.now_ms() + 100_000
    store.register_version("v2", "test-app", later_ms)
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        store.promote_version("v2", "test-app", later_ms + 1)
        scheduler.at("2026-01-01T12:10")
        store.promote_version("v1", "test-app", later_ms + 2)
        scheduler.at("2026-01-01T12:20")
    versions = [status_row(database_url, f"sched-s-{time}")["application_version"] for time in at("12:10", "12:20")]
    assert versions == ["v2", "v1"]


def test_a_schedule_without_owner_fires_for_the_application_of_the_process(app: type[DBOS], database_url: str) -> None:
    """03 R136."""
    create()
    rows(database_url, "UPDATE workflow_schedules SET application_name = NULL")
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:10")
    assert status_row(database_url, f"sched-s-{at('12:10')[0]}")["application_name"] == "test-app"


def test_the_schedules_of_other_applications_do_not_fire_here(app: type[DBOS], database_url: str) -> None:
    """03 R131."""
    create()
    rows(database_url, "UPDATE workflow_schedules SET application_name = 'other-app'")
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:30")
    assert runs(database_url) == []


def test_class_methods_get_their_class_and_static_methods_nothing(app: type[DBOS]) -> None:
    """03 R141."""
    seen: list[Any] = []

    @DBOS.dbos_class("Reports")
    class Reports:
        @classmethod
        @DBOS.workflow(name="of_class")
        def of_class(cls, when: datetime, context: Any) -> None:
            seen.append((cls, context))

        @staticmethod
        @DBOS.workflow(name="of_nobody")
        def of_nobody(when: datetime, context: Any) -> None:
            seen.append((None, context))

    create("c", far(), workflow_fn=Reports.of_class, context=1)
    create("n", far(), workflow_fn=Reports.of_nobody, context=2)
    DBOS.trigger_schedule("c").get_result()
    DBOS.trigger_schedule("n").get_result()
    assert seen == [(Reports, 1), (None, 2)]


def test_async_workflows_can_be_scheduled(app: type[DBOS]) -> None:
    seen: list[Any] = []

    @DBOS.workflow()
    async def nightly(when: datetime, context: Any) -> None:
        seen.append(context)

    create(workflow_fn=nightly, schedule=far(), context="c")
    DBOS.trigger_schedule("s").get_result()
    assert seen == ["c"]


def test_with_portable_json_the_time_is_a_datetime_again(config: Config) -> None:
    """03 R141."""
    DBOS(config={**config, "serializer": DBOSPortableJSONSerializer()})  # type: ignore[typeddict-item]
    DBOS.launch()
    seen: list[Any] = []

    @DBOS.workflow()
    def nightly(when: datetime, context: Any) -> None:
        seen.append((when, context))

    create(workflow_fn=nightly, schedule=far(), context={"a": 1})
    handle = DBOS.backfill_schedule("s", datetime(2024, 2, 28), datetime(2024, 3, 1))[0]
    handle.get_result()
    assert seen == [(datetime(2024, 2, 29, tzinfo=timezone.utc), {"a": 1})]
    DBOS.destroy(destroy_registry=True)


# --- timing


def test_the_first_tick_is_the_first_one_after_the_process_knows_the_schedule(
    app: type[DBOS], database_url: str
) -> None:
    """03 R133."""
    create()
    with stepped("2026-01-01T12:10:00") as scheduler:
        # A tick right now is not later than now.
        assert scheduler.at("2026-01-01T12:10:00") == pytest.approx(1.0)
        scheduler.at("2026-01-01T12:19:59")
        assert runs(database_url) == []
        # The next turn comes right at the tick, not at the next look.
        assert scheduler.at("2026-01-01T12:19:59.700") == pytest.approx(0.3, abs=0.01)
        scheduler.at("2026-01-01T12:20:00")
        assert runs(database_url) == at("12:20")


def test_ticks_that_passed_in_a_running_process_all_run(app: type[DBOS], database_url: str) -> None:
    """03 R139: a suspension or a blocked database skips nothing, by default."""
    create()
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:45")
    assert runs(database_url) == at("12:10", "12:20", "12:30", "12:40")


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [("all", ("12:10", "12:20", "12:30", "12:40")), ("last", ("12:40",)), ("none", ())],
)
def test_ticks_missed_by_a_running_process_follow_the_policy(
    app: type[DBOS], database_url: str, catch_up: str, expected: tuple[str, ...]
) -> None:
    create(catch_up=catch_up)
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:45")
        assert runs(database_url) == at(*expected)
        scheduler.at("2026-01-01T12:50:30")
        # Half a minute late is not missed.
        assert runs(database_url) == at(*expected, "12:50")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ()),
        ({"automatic_backfill": True}, ("12:20", "12:30", "12:40")),
        ({"catch_up": "all"}, ("12:20", "12:30", "12:40")),
        ({"catch_up": "last"}, ("12:40",)),
        ({"automatic_backfill": True, "catch_up": "last"}, ("12:40",)),
        ({"catch_up": "none"}, ()),
    ],
)
def test_ticks_missed_while_no_process_ran_follow_the_policy(
    app: type[DBOS], database_url: str, given: dict[str, Any], expected: tuple[str, ...]
) -> None:
    """03 R145."""
    create(**given)
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:10")
    with stepped("2026-01-01T12:45") as another:
        another.at("2026-01-01T12:45")
        assert runs(database_url) == at("12:10", *expected)
        another.at("2026-01-01T12:50")
    assert runs(database_url) == at("12:10", *expected, "12:50")


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"automatic_backfill": True}, ()), ({"catch_up": "all"}, ("12:10", "12:20")), ({"catch_up": "last"}, ("12:20",))],
)
def test_a_schedule_that_has_never_fired_is_made_up_for_only_by_a_policy_of_its_own(
    app: type[DBOS], database_url: str, given: dict[str, Any], expected: tuple[str, ...]
) -> None:
    """03 R145. Since its creation, which its id tells."""
    with stepped(NOON) as scheduler:
        create(**given)
        scheduler.at("2026-01-01T12:25")
    assert runs(database_url) == at(*expected)


def test_a_clock_set_back_repeats_nothing_and_one_set_forward_fires_what_passed(
    app: type[DBOS], database_url: str
) -> None:
    create()
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:20")
        scheduler.at("2026-01-01T11:30")
        scheduler.at("2026-01-01T12:05")
        assert scheduler.at("2026-01-01T12:20") > 0
        assert runs(database_url) == at("12:10", "12:20")
        scheduler.at("2026-01-01T13:00")
    assert runs(database_url) == at("12:10", "12:20", "12:30", "12:40", "12:50", "13:00")
    assert schedule_row(database_url, "s")["last_fired_at"] == at("13:00")[0]


def test_a_process_whose_clock_was_set_back_before_it_began_repeats_nothing(app: type[DBOS], database_url: str) -> None:
    create(automatic_backfill=True)
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:30")
    rows(database_url, "DELETE FROM workflow_status")
    with stepped("2026-01-01T12:15") as another:
        another.at("2026-01-01T12:15")
        another.at("2026-01-01T12:30")
        # The tick of the row; an earlier one has no run any more, and gets none that would go back in time.
        assert runs(database_url) == at("12:20")
    assert schedule_row(database_url, "s")["last_fired_at"] == at("12:30")[0]


def test_in_the_repeated_hour_of_autumn_both_ticks_run(app: type[DBOS], database_url: str) -> None:
    """03 R130, with times that differ only by their offset."""
    create(schedule="30 1 * * *", cron_timezone="America/New_York")
    with stepped("2025-11-02T00:00-04:00") as scheduler:
        scheduler.at("2025-11-02T00:00-04:00")
        scheduler.at("2025-11-02T01:30-04:00")
        scheduler.at("2025-11-02T01:30-05:00")
        scheduler.at("2025-11-02T03:00-05:00")
    assert runs(database_url) == ["2025-11-02T01:30:00-04:00", "2025-11-02T01:30:00-05:00"]
    assert schedule_row(database_url, "s")["last_fired_at"] == "2025-11-02T01:30:00-05:00"


def test_many_missed_ticks_are_written_in_several_transactions(app: type[DBOS], database_url: str) -> None:
    with stepped(NOON) as scheduler:
        create(schedule="* * * * * *")
        create("other", "*/2 * * * * *")
        scheduler.at("2026-01-01T12:00:00")
        scheduler.at("2026-01-01T12:20:00")
    assert len(runs(database_url)) == 1200 > 2 * RUNS_AT_ONCE
    assert len(runs(database_url, "other")) == 600


def test_a_year_of_missed_seconds_costs_nothing_when_only_the_last_counts(app: type[DBOS], database_url: str) -> None:
    with stepped("2025-01-01T12:00:00") as scheduler:
        create(schedule="* * * * * *", catch_up="last")
        create("none", "* * * * * *", catch_up="none")
        scheduler.at("2025-01-01T12:00:00.500")
        scheduler.at("2026-01-01T12:00:00.500")
    assert runs(database_url) == ["2026-01-01T12:00:00+00:00"]
    assert runs(database_url, "none")[-1] == "2026-01-01T12:00:00+00:00"
    assert len(runs(database_url, "none")) == 60


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


# --- overlap


def test_runs_overlap_by_default_and_are_skipped_with_the_policy(app: type[DBOS], database_url: str) -> None:
    """03 R140, and section 15.13."""
    DBOS.register_queue("q", worker_concurrency=0)
    create(queue_name="q")
    create("one", queue_name="q", overlap="skip")
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:30")
        assert runs(database_url) == at("12:10", "12:20", "12:30")
        assert runs(database_url, "one") == at("12:10")
        assert schedule_row(database_url, "one")["last_fired_at"] == at("12:30")[0]
        rows(database_url, "UPDATE workflow_status SET status = 'SUCCESS' WHERE schedule_name = 'one'")
        scheduler.at("2026-01-01T12:40")
        assert runs(database_url, "one") == at("12:10", "12:40")
        # A run asked for by hand is always written.
        DBOS.trigger_schedule("one")
    assert len(runs(database_url, "one")) == 3


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
