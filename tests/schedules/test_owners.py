"""Schedules and the processes that run them: whose they are, of which version, how their runs are called (03 10.3)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSException
from tests.helpers import replay, rows, status_row
from tests.schedules.recording import declare, far, runs, schedule_row, stepped, the_engine

Config = dict[str, Any]
NOON = "2026-01-01T12:00:00"


def create(name: str = "s", schedule: str = "*/10 * * * *", **given: Any) -> None:
    """Make a schedule, with the scheduler of the process at rest."""
    the_engine().scheduler.stop()
    DBOS.create_schedule(**{"schedule_name": name, "workflow_fn": declare(), "schedule": schedule, **given})


def test_a_process_runs_schedules_whatever_its_version_and_whatever_it_listens_to(
    config: Config, database_url: str
) -> None:
    """03 R131, R136: the run is for the latest version, also when an older process fires it."""
    for version in ("v1", "v2", "v1"):
        DBOS.destroy()
        DBOS(config=config | {"application_version": version})  # type: ignore[arg-type]
        DBOS.listen_queues([])
        DBOS.launch()
    create()
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:10")
    assert runs(database_url) == ["2026-01-01T12:10:00+00:00"]
    row = status_row(database_url, "sched-s-2026-01-01T12:10:00+00:00")
    assert (row["application_version"], row["status"]) == ("v2", "ENQUEUED")
    handle = DBOS.trigger_schedule("s")
    assert status_row(database_url, handle.workflow_id)["application_version"] == "v2"  # R143
    DBOS.destroy(destroy_registry=True)


@pytest.mark.parametrize("name", ["sched-x", "a b%_'\"", "Ω/日報", "2026-01-01T12:10:00+00:00"])
def test_the_name_stands_in_the_id_of_a_run_as_it_is(app: type[DBOS], database_url: str, name: str) -> None:
    """03 R135."""
    create(name, cron_timezone="Europe/Berlin")
    with stepped(NOON) as scheduler:
        scheduler.at("2026-01-01T12:01")
        scheduler.at("2026-01-01T12:10")
    assert runs(database_url, name) == ["2026-01-01T13:10:00+01:00"]
    assert status_row(database_url, f"sched-{name}-2026-01-01T13:10:00+01:00")["schedule_name"] == name
    assert schedule_row(database_url, name)["last_fired_at"] == "2026-01-01T13:10:00+01:00"


def test_changing_a_schedule_of_another_application_names_the_owner(
    app: type[DBOS], config: Config, database_url: str, dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    """03 section 15, 20: it is done, as in the reference release, and it does not happen unnoticed."""
    for name in ("own", "foreign", "unclaimed"):
        create(name, far())
    rows(database_url, "UPDATE workflow_schedules SET application_name = 'other-app' WHERE schedule_name = 'foreign'")
    rows(database_url, "UPDATE workflow_schedules SET application_name = NULL WHERE schedule_name = 'unclaimed'")

    @DBOS.workflow()
    def change() -> str:
        for name in ("own", "foreign", "unclaimed", "absent"):
            DBOS.pause_schedule(name)
            DBOS.resume_schedule(name)
            DBOS.delete_schedule(name)
        return "changed"

    DBOS.pause_schedule("foreign")
    with SetWorkflowID("w"):
        change()
    expected = [
        f"Schedule 'foreign', which application 'test-app' has {what}, belongs to application 'other-app'"
        for what in ("paused", "paused", "resumed", "deleted")
    ]
    assert [message for message in caplog.messages if "belongs to application" in message] == expected
    assert DBOS.list_schedules(application_name="") == []
    # A replay changes nothing, and says nothing.
    assert replay(config, "w") == "changed"
    assert [message for message in caplog.messages if "belongs to application" in message] == expected


def test_a_backfill_of_what_never_matches_is_an_error(app: type[DBOS], database_url: str) -> None:
    """03 R127, R144: such an expression can come only from other releases. No time between is no error."""
    create()
    rows(database_url, "UPDATE workflow_schedules SET schedule = '0 0 31 2 *'")
    start, end = datetime(2026, 1, 1), datetime(2026, 2, 1)
    with pytest.raises(DBOSException, match=r"'s'.*'0 0 31 2 \*' matches no time"):
        DBOS.backfill_schedule("s", start, end)
    assert DBOS.backfill_schedule("s", end, start) == []
    rows(database_url, "UPDATE workflow_schedules SET schedule = '0 0 1 7 *'")
    assert DBOS.backfill_schedule("s", start, end) == []
    assert runs(database_url) == []
