"""Schedules through a client (04 R532; 03 section 10.1)."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from dbos import DBOS, ClientScheduleInput, DBOSClient
from dbos.error import DBOSException
from tests.helpers import status_row

YEARLY = "0 0 1 1 *"


def declare_nightly() -> list[tuple[datetime, Any]]:
    ran: list[tuple[datetime, Any]] = []

    @DBOS.workflow(name="nightly")
    def nightly(scheduled_at: datetime, context: Any) -> None:
        ran.append((scheduled_at, context))

    return ran


def create(client: DBOSClient, name: str = "s", **others: Any) -> None:
    client.create_schedule(**{"schedule_name": name, "workflow_name": "nightly", "schedule": YEARLY, **others})


def test_a_schedule_is_created_with_all_it_says(client: DBOSClient) -> None:
    """04 R532, 03 section 10.1."""
    create(
        client,
        context={"a": 1},
        workflow_class_name="Shop",
        automatic_backfill=True,
        cron_timezone="Europe/Berlin",
        queue_name="not-registered",
        overlap="skip",
    )
    found = client.get_schedule("s")
    assert found is not None
    assert (found["workflow_name"], found["workflow_class_name"], found["schedule"]) == ("nightly", "Shop", YEARLY)
    assert (found["context"], found["automatic_backfill"], found["cron_timezone"]) == ({"a": 1}, True, "Europe/Berlin")
    assert (found["queue_name"], found["application_name"], found["status"]) == ("not-registered", "test-app", "ACTIVE")
    assert found["overlap"] == "skip"
    assert DBOS.get_schedule("s") == found


def test_a_schedule_of_a_client_fires_in_the_application(client: DBOSClient) -> None:
    """04 R532."""
    ran = declare_nightly()
    client.register_queue("mail")
    create(client, context="c", queue_name="mail")
    client.trigger_schedule("s").get_result()
    (handle,) = client.backfill_schedule("s", datetime(2025, 12, 31), datetime(2026, 1, 2))
    assert handle.workflow_id == "sched-s-2026-01-01T00:00:00+00:00"
    handle.get_result()
    assert [context for _, context in ran] == ["c", "c"]
    assert ran[1][0] == datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"schedule": "every day"}, "every day"),
        ({"cron_timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"workflow_name": ""}, "workflow_name"),
        ({"queue_name": 5}, "queue_name"),
        ({"schedule_name": ""}, "schedule"),
        ({"shard_key": "s"}, "not sharded"),
        ({"overlap": "maybe"}, "overlap"),
    ],
)
def test_an_argument_without_meaning_is_refused(client: DBOSClient, wrong: Any, message: str) -> None:
    """04 R532, 03 R116."""
    with pytest.raises(DBOSException, match=message):
        create(client, **wrong)
    assert client.list_schedules() == []


def test_a_name_in_use_is_refused(client: DBOSClient) -> None:
    """04 R532, 03 R117."""
    create(client, application_name="other-app")
    with pytest.raises(DBOSException, match="other-app"):
        create(client)


def test_all_entries_are_applied_or_none(client: DBOSClient) -> None:
    """04 R532."""
    create(client, "kept")
    client.pause_schedule("kept")
    entries: list[ClientScheduleInput] = [
        {"schedule_name": "kept", "workflow_name": "nightly", "schedule": "0 3 * * *"},
        {"schedule_name": "new", "workflow_name": "nightly", "schedule": YEARLY, "application_name": None},
    ]
    incomplete: Any = [entries[0], {"schedule_name": "x", "schedule": YEARLY}]
    with pytest.raises(DBOSException, match=r"Entry 1 .*'workflow_name'"):
        client.apply_schedules(incomplete)
    assert [found["schedule"] for found in client.list_schedules()] == [YEARLY]
    client.apply_schedules(entries)
    kept, new = client.list_schedules()
    assert (kept["schedule"], kept["status"]) == ("0 3 * * *", "PAUSED")
    # 03 R119
    assert (new["schedule_name"], new["application_name"]) == ("new", None)


def test_a_schedule_of_another_application_is_not_replaced(client: DBOSClient) -> None:
    """04 R532."""
    create(client, application_name="other-app")
    with pytest.raises(DBOSException, match="other-app"):
        client.apply_schedules([{"schedule_name": "s", "workflow_name": "mine", "schedule": YEARLY}])
    found = client.get_schedule("s")
    assert found is not None
    assert found["workflow_name"] == "nightly"


def test_listing_schedules(client: DBOSClient, database_url: str) -> None:
    """03 R120."""
    create(client, "own")
    create(client, "other", application_name="other-app")
    with DBOSClient(system_database_url=database_url) as nameless:
        create(nameless, "unowned")
        assert {found["schedule_name"] for found in nameless.list_schedules()} == {"own", "other", "unowned"}
    client.pause_schedule("unowned")

    def names(**filters: Any) -> list[str]:
        return sorted(found["schedule_name"] for found in client.list_schedules(**filters))

    assert names() == ["own", "unowned"]
    assert names(status="PAUSED") == ["unowned"]
    assert names(schedule_name_prefix=["ow", "ot"]) == ["own"]
    assert names(application_name="other-app") == ["other", "unowned"]
    assert names(application_name="") == ["other", "own", "unowned"]


def test_unknown_names_are_passed_over_or_refused(client: DBOSClient) -> None:
    """04 R532."""
    client.pause_schedule("absent")
    client.resume_schedule("absent")
    client.delete_schedule("absent")
    assert client.get_schedule("absent") is None
    with pytest.raises(DBOSException, match="absent"):
        client.trigger_schedule("absent")
    with pytest.raises(DBOSException, match="absent"):
        client.backfill_schedule("absent", datetime(2026, 1, 1), datetime(2026, 1, 2))


async def test_everything_has_an_async_form(client: DBOSClient) -> None:
    """04 section 12, 20."""
    declare_nightly()
    await client.create_schedule_async(schedule_name="s", workflow_name="nightly", schedule=YEARLY)
    await client.apply_schedules_async([{"schedule_name": "t", "workflow_name": "nightly", "schedule": YEARLY}])
    await client.pause_schedule_async("s")
    assert [found["schedule_name"] for found in await client.list_schedules_async(status="PAUSED")] == ["s"]
    await client.resume_schedule_async("s")
    found = await client.get_schedule_async("s")
    assert found is not None
    assert found["status"] == "ACTIVE"
    await (await client.trigger_schedule_async("s")).get_result()
    handles = await client.backfill_schedule_async("s", datetime(2024, 12, 31), datetime(2026, 1, 2))
    assert [handle.workflow_id for handle in handles] == [
        "sched-s-2025-01-01T00:00:00+00:00",
        "sched-s-2026-01-01T00:00:00+00:00",
    ]
    await client.delete_schedule_async("s")
    assert await client.get_schedule_async("s") is None


def test_a_run_of_a_schedule_that_nobody_owns_belongs_to_nobody(app: type[DBOS], database_url: str) -> None:
    """03 R39: the owner's version, where there is one."""
    declare_nightly()
    with DBOSClient(system_database_url=database_url) as nameless:
        create(nameless, queue_name="nobody-serves-this")
        handle = nameless.trigger_schedule("s")
    row = status_row(database_url, handle.workflow_id)
    assert (row["application_name"], row["application_version"]) == (None, None)
