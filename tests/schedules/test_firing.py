"""When schedules fire, and what each tick enqueues (03 section 10.3)."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from dbos import DBOS
from dbos.engine.scheduler import RUNS_AT_ONCE
from dbos.serialization import DBOSPortableJSONSerializer
from tests.helpers import PATIENCE_SECONDS, rows, status_row
from tests.schedules.recording import NOON, at, create, far, runs, schedule_row, stepped, the_engine

Config = dict[str, Any]

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
