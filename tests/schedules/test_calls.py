"""Creating, changing and reading schedules (03 section 10.1)."""

from __future__ import annotations

import asyncio
import pickle
import threading
from datetime import datetime
from typing import Any

import pytest

from dbos import DBOS, DBOSConfiguredInstance, SetWorkflowID, WorkflowSchedule
from dbos.api.runtime import state
from dbos.error import DBOSException, DBOSWorkflowFunctionNotFoundError
from tests.helpers import make_pending, relaunch, rows, step_names
from tests.schedules.recording import declare, far, schedule_row

Config = dict[str, Any]


def create(name: str = "s", **given: Any) -> None:
    DBOS.create_schedule(**{"schedule_name": name, "workflow_fn": declare(), "schedule": far(), **given})


def get(name: str = "s") -> WorkflowSchedule:
    found = DBOS.get_schedule(name)
    assert found is not None
    return found


def test_a_created_schedule_has_what_was_given(app: type[DBOS], database_url: str) -> None:
    """03 section 2.4, R117."""
    DBOS.register_queue("q")
    create(context={"full": True}, automatic_backfill=True, cron_timezone="Europe/Berlin", queue_name="q")
    found = get()
    assert found["schedule_id"]
    assert {key: found[key] for key in found if key != "schedule_id"} == {  # type: ignore[literal-required]
        "schedule_name": "s", "workflow_name": "recorded", "workflow_class_name": None, "schedule": far(),
        "status": "ACTIVE", "context": {"full": True}, "last_fired_at": None, "automatic_backfill": True,
        "cron_timezone": "Europe/Berlin", "queue_name": "q", "application_name": "test-app", "shard_key": None,
        "overlap": "allow", "catch_up": None, "problem": None,
    }  # fmt: skip
    row = schedule_row(database_url, "s")
    assert row["schedule_id"] == found["schedule_id"]
    assert (row["status"], bool(row["automatic_backfill"])) == ("ACTIVE", True)
    create("plain")
    assert (get("plain")["context"], get("plain")["automatic_backfill"], get("plain")["queue_name"]) == (
        None,
        False,
        None,
    )


def test_an_absent_schedule_is_none_and_changing_it_does_nothing(app: type[DBOS]) -> None:
    assert DBOS.get_schedule("nobody") is None
    DBOS.delete_schedule("nobody")
    DBOS.pause_schedule("nobody")
    DBOS.resume_schedule("nobody")
    for call in (lambda: DBOS.trigger_schedule("nobody"), lambda: DBOS.backfill_schedule("nobody", *_year())):
        with pytest.raises(DBOSException, match="no schedule 'nobody'"):
            call()


def _year() -> tuple[datetime, datetime]:
    return datetime(2026, 1, 1), datetime(2027, 1, 1)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"schedule": "* * *"}, "cron expression"),
        ({"schedule": "0 0 31 2 *"}, "50 years"),
        ({"schedule": None}, "is a text"),
        ({"cron_timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"cron_timezone": ""}, "IANA"),
        ({"queue_name": "unknown"}, "'unknown', which is not registered"),
        ({"queue_name": 5}, "5"),
        ({"schedule_name": ""}, "non-empty"),
        ({"schedule_name": 7}, "7"),
        ({"schedule_name": "a\0b"}, "NUL"),
        ({"overlap": "never"}, "'never'"),
        ({"catch_up": "some"}, "'some'"),
        ({"automatic_backfill": True, "catch_up": "none"}, "Leave out one"),
        ({"context": lambda: None}, "The context of schedule 's' could not be stored"),
        ({"shard_key": "k"}, "shard"),
    ],
)
def test_what_has_no_meaning_is_refused_before_anything_is_written(
    app: type[DBOS], database_url: str, given: dict[str, Any], text: str
) -> None:
    """03 R115."""
    with pytest.raises(Exception, match=text):
        create(**given)
    assert rows(database_url, "SELECT * FROM workflow_schedules") == []


def test_a_partitioned_queue_is_refused_since_runs_have_no_partition_key(app: type[DBOS]) -> None:
    DBOS.register_queue("parts", partition_concurrency=1)
    with pytest.raises(DBOSException, match="partition"):
        create(queue_name="parts")


def test_only_a_registered_workflow_that_takes_time_and_context_can_be_scheduled(app: type[DBOS]) -> None:
    """03 R115; unlike the reference the signature is checked (section 14)."""

    @DBOS.step()
    def a_step(at: datetime, context: Any) -> None: ...

    def unknown(at: datetime, context: Any) -> None: ...

    @DBOS.workflow()
    def of_one(at: datetime) -> None: ...

    @DBOS.dbos_class()
    class Reports(DBOSConfiguredInstance):
        @DBOS.workflow()
        def of_instance(self, at: datetime, context: Any) -> None: ...

        @classmethod
        @DBOS.workflow()
        def of_class(cls, at: datetime, context: Any) -> None: ...

        @staticmethod
        @DBOS.workflow()
        def of_nobody(at: datetime, context: Any) -> None: ...

    with pytest.raises(DBOSException, match="is a step"):
        create(workflow_fn=a_step)
    with pytest.raises(DBOSWorkflowFunctionNotFoundError, match="unknown"):
        create(workflow_fn=unknown)
    with pytest.raises(DBOSException, match="two arguments"):
        create(workflow_fn=of_one)
    with pytest.raises(DBOSException, match="of an instance"):
        create(workflow_fn=Reports("r").of_instance)
    create("class", workflow_fn=Reports.of_class)
    create("static", workflow_fn=Reports.of_nobody)
    assert get("class")["workflow_class_name"] == Reports.__qualname__
    assert get("static")["workflow_class_name"] is None


def test_a_name_in_use_is_refused(app: type[DBOS], database_url: str) -> None:
    """03 R117."""
    create()
    with pytest.raises(DBOSException, match="'s' exists already"):
        create()
    create("theirs")
    rows(database_url, "UPDATE workflow_schedules SET application_name = 'other-app' WHERE schedule_name = 'theirs'")
    with pytest.raises(DBOSException, match="'other-app'"):
        create("theirs")


def test_of_concurrent_creators_exactly_one_succeeds(app: type[DBOS]) -> None:
    """03 R117."""
    workflow, gate, outcomes = declare(), threading.Barrier(6), []

    def attempt() -> None:
        gate.wait(30)
        try:
            DBOS.create_schedule(schedule_name="s", workflow_fn=workflow, schedule=far())
            outcomes.append("created")
        except DBOSException:
            outcomes.append("refused")

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == ["created"] + ["refused"] * 5


def test_apply_replaces_the_whole_definition_and_keeps_id_status_and_last_tick(
    app: type[DBOS], database_url: str
) -> None:
    """03 R118."""
    create(context="old", cron_timezone="Europe/Berlin", automatic_backfill=True, overlap="skip")
    create("other")
    DBOS.pause_schedule("s")
    rows(database_url, "UPDATE workflow_schedules SET last_fired_at = '2026-01-01T00:00:00+00:00' "
                       "WHERE schedule_name = 's'")  # fmt: skip
    before = get()
    DBOS.apply_schedules(
        [
            {"schedule_name": "s", "workflow_fn": declare("second"), "schedule": "1 1 1 1 *"},
            {"schedule_name": "new", "workflow_fn": declare("second"), "schedule": far(), "catch_up": "last"},
        ]
    )
    after = get()
    assert (after["schedule_id"], after["status"], after["last_fired_at"]) == (
        before["schedule_id"],
        "PAUSED",
        "2026-01-01T00:00:00+00:00",
    )
    assert (after["workflow_name"], after["schedule"], after["context"]) == ("second", "1 1 1 1 *", None)
    assert (after["cron_timezone"], after["automatic_backfill"], after["overlap"]) == (None, False, "allow")
    assert [s["schedule_name"] for s in DBOS.list_schedules()] == ["new", "other", "s"]
    assert get("new")["catch_up"] == "last"


def test_apply_is_all_or_nothing(app: type[DBOS], database_url: str) -> None:
    """03 R118."""
    workflow = declare()
    create("theirs")
    rows(database_url, "UPDATE workflow_schedules SET application_name = 'other-app'")
    good: Any = {"schedule_name": "a", "workflow_fn": workflow, "schedule": far()}
    with pytest.raises(DBOSException, match="'other-app'"):
        DBOS.apply_schedules([good, {**good, "schedule_name": "theirs"}])
    with pytest.raises(DBOSException, match=r"Entry 1.*cron expression"):
        DBOS.apply_schedules([good, {**good, "schedule_name": "b", "schedule": "x"}])
    with pytest.raises(DBOSException, match=r"Entry 1.*'workflow_fn' is missing"):
        DBOS.apply_schedules([good, {"schedule_name": "b", "schedule": far()}])
    assert DBOS.get_schedule("a") is None


def test_of_entries_with_one_name_the_last_counts_and_an_unowned_schedule_is_claimed(
    app: type[DBOS], database_url: str
) -> None:
    """03 R118."""
    create()
    rows(database_url, "UPDATE workflow_schedules SET application_name = NULL")
    entry: Any = {"schedule_name": "s", "workflow_fn": declare(), "schedule": far()}
    DBOS.apply_schedules([{**entry, "context": 1}, {**entry, "context": 2}])
    assert (get()["context"], get()["application_name"]) == (2, "test-app")


def test_concurrent_identical_applies_all_succeed(app: type[DBOS]) -> None:
    """03 R118."""
    workflow = declare()
    entries: Any = [{"schedule_name": f"s{i}", "workflow_fn": workflow, "schedule": far()} for i in range(5)]
    errors: list[BaseException] = []

    def apply(entries: Any) -> None:
        try:
            DBOS.apply_schedules(entries)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=apply, args=(e,)) for e in (entries, entries[::-1], entries, entries[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert len(DBOS.list_schedules()) == 5


def test_listing_combines_its_filters(app: type[DBOS], database_url: str) -> None:
    """03 R15-like scope, R120; the prefix has no wildcards (section 14)."""
    for name in ("a_1", "a_2", "ax3", "b"):
        create(name)
    create("second", workflow_fn=declare("second"))
    DBOS.pause_schedule("a_2")
    rows(database_url, "UPDATE workflow_schedules SET application_name = 'other-app' WHERE schedule_name = 'b'")

    def names(**filters: Any) -> list[str]:
        return [found["schedule_name"] for found in DBOS.list_schedules(**filters)]

    assert names() == ["a_1", "a_2", "ax3", "second"]
    assert names(status="PAUSED") == ["a_2"]
    assert names(status=["PAUSED", "ACTIVE"], schedule_name_prefix="a_") == ["a_1", "a_2"]
    assert names(schedule_name_prefix=["ax", "sec"]) == ["ax3", "second"]
    assert names(workflow_name="second") == ["second"]
    assert names(status=[]) == names(workflow_name=[]) == []
    assert names(application_name="other-app") == ["b"]
    assert names(application_name="") == names(application_name=[]) == ["a_1", "a_2", "ax3", "b", "second"]


def test_pause_resume_and_delete(app: type[DBOS]) -> None:
    create()
    DBOS.pause_schedule("s")
    assert get()["status"] == "PAUSED"
    DBOS.resume_schedule("s")
    assert get()["status"] == "ACTIVE"
    DBOS.delete_schedule("s")
    assert DBOS.get_schedule("s") is None


def test_a_context_that_cannot_be_read_comes_back_as_text(
    app: type[DBOS], database_url: str, dbos_log: None, caplog: pytest.LogCaptureFixture
) -> None:
    """03 R121."""
    create()
    rows(database_url, "UPDATE workflow_schedules SET context = 'no pickle' WHERE schedule_name = 's'")
    assert get()["context"] == "no pickle"
    assert [found["context"] for found in DBOS.list_schedules()] == ["no pickle"]
    assert "The context of schedule 's' cannot be read" in caplog.text
    with pytest.raises(DBOSException, match="The context of schedule 's' cannot be read"):
        DBOS.trigger_schedule("s")
    with pytest.raises(DBOSException, match="The context of schedule 's' cannot be read"):
        DBOS.backfill_schedule("s", *_year())


def test_without_an_application_or_before_launch_the_calls_are_refused(config: Config) -> None:
    """03 R124."""
    for prepare in (lambda: None, lambda: DBOS(config=config)):
        prepare()  # type: ignore[no-untyped-call]
        for call in (
            lambda: DBOS.get_schedule("s"),
            lambda: DBOS.list_schedules(),
            lambda: DBOS.pause_schedule("s"),
            lambda: DBOS.apply_schedules([]),
            lambda: DBOS.trigger_schedule("s"),
        ):
            with pytest.raises(DBOSException):
                call()
    DBOS.destroy()


async def test_the_calls_work_in_an_event_loop_both_ways(config: Config) -> None:
    """03 R124."""
    DBOS(config=config)
    DBOS.launch()
    workflow = declare()
    DBOS.create_schedule(schedule_name="sync", workflow_fn=workflow, schedule=far())
    await DBOS.create_schedule_async(schedule_name="async", workflow_fn=workflow, schedule=far())
    await DBOS.apply_schedules_async([{"schedule_name": "applied", "workflow_fn": workflow, "schedule": far()}])
    assert [found["schedule_name"] for found in await DBOS.list_schedules_async()] == ["applied", "async", "sync"]
    assert DBOS.get_schedule("async") == await DBOS.get_schedule_async("async")
    await DBOS.delete_schedule_async("async")
    assert await DBOS.get_schedule_async("async") is None
    DBOS.destroy(destroy_registry=True)


# --- in workflow code


def test_in_a_workflow_changes_are_steps_that_a_replay_does_not_repeat(config: Config, database_url: str) -> None:
    """03 R122."""
    DBOS(config=config)
    workflow = declare()

    @DBOS.workflow()
    def arrange() -> Any:
        DBOS.create_schedule(schedule_name="s", workflow_fn=workflow, schedule=far(), context=1)
        problem = None
        try:
            DBOS.create_schedule(schedule_name="s", workflow_fn=workflow, schedule=far())
        except DBOSException as error:
            problem = str(error)
        DBOS.pause_schedule("s")
        paused = DBOS.get_schedule("s")
        DBOS.resume_schedule("s")
        listed = [found["schedule_name"] for found in DBOS.list_schedules()]
        DBOS.delete_schedule("s")
        return problem, paused and paused["status"], listed

    DBOS.launch()
    with SetWorkflowID("w"):
        first = arrange()
    assert first[1:] == ("PAUSED", ["s"])
    assert "exists already" in first[0]
    assert step_names(database_url, "w") == {
        1: "DBOS.createSchedule", 2: "DBOS.createSchedule", 3: "DBOS.pauseSchedule", 4: "DBOS.getSchedule",
        5: "DBOS.resumeSchedule", 6: "DBOS.listSchedules", 7: "DBOS.deleteSchedule",
    }  # fmt: skip
    make_pending(database_url, "w")
    relaunch(config)
    assert DBOS.retrieve_workflow("w").get_result() == first
    assert DBOS.get_schedule("s") is None
    DBOS.destroy(destroy_registry=True)


def test_an_execution_that_lost_its_workflow_changes_nothing(app: type[DBOS], database_url: str) -> None:
    """03 R122: the change and its step are one transaction, which checks the ownership."""
    workflow = declare()
    create("kept")

    @DBOS.workflow()
    def arrange() -> None:
        DBOS.run_step({"name": "lose"}, lambda: None)
        rows(database_url, "UPDATE workflow_status SET owner_xid = 'another' WHERE workflow_uuid = 'w'")
        DBOS.create_schedule(schedule_name="s", workflow_fn=workflow, schedule=far())

    @DBOS.workflow()
    def remove() -> None:
        rows(database_url, "UPDATE workflow_status SET owner_xid = 'another' WHERE workflow_uuid = 'v'")
        DBOS.delete_schedule("kept")

    handles = []
    for workflow_id, function in (("w", arrange), ("v", remove)):
        with SetWorkflowID(workflow_id):
            handles.append(DBOS.start_workflow(function))
    assert state.instance is not None
    assert state.instance.engine is not None
    # Both park: they wait for what their new owner records.
    assert state.instance.engine.drain(60)
    assert DBOS.get_schedule("s") is None
    assert DBOS.get_schedule("kept") is not None
    DBOS.cancel_workflows(["w", "v"])


def test_a_change_whose_answer_was_lost_finds_itself(app: type[DBOS], database_url: str) -> None:
    """A repeated creation is the same one, in workflows and outside."""
    assert state.instance is not None
    engine = state.instance.engine
    assert engine is not None
    create()
    store = engine.store
    (schedule,) = store.list_schedules(["test-app"])
    assert store.create_schedule(schedule, None).name == "APPLIED"  # type: ignore[union-attr]


async def test_gathered_calls_take_their_step_ids_in_the_order_of_the_calls(config: Config, database_url: str) -> None:
    """03 section 15.15."""
    DBOS(config=config)
    workflow = declare()

    @DBOS.workflow()
    async def arrange() -> list[Any]:
        await asyncio.gather(
            DBOS.create_schedule_async(schedule_name="a", workflow_fn=workflow, schedule=far()),
            DBOS.get_schedule_async("b"),
            DBOS.list_schedules_async(status="PAUSED"),
            DBOS.delete_schedule_async("c"),
        )
        return []

    DBOS.launch()
    with SetWorkflowID("w"):
        await arrange()
    assert list(step_names(database_url, "w").values()) == [
        "DBOS.createSchedule",
        "DBOS.getSchedule",
        "DBOS.listSchedules",
        "DBOS.deleteSchedule",
    ]
    DBOS.destroy(destroy_registry=True)


def test_apply_trigger_and_backfill_are_refused_in_workflows_and_work_in_steps(app: type[DBOS]) -> None:
    """03 R123."""
    workflow = declare()
    create()
    calls = (
        lambda: DBOS.apply_schedules([{"schedule_name": "s", "workflow_fn": workflow, "schedule": far()}]),
        lambda: DBOS.trigger_schedule("s"),
        lambda: DBOS.backfill_schedule("s", *_year()),
    )

    @DBOS.workflow()
    def wrong() -> int:
        refused = 0
        for call in calls:
            with pytest.raises(DBOSException, match="workflow code"):
                call()
            refused += 1
        return refused

    @DBOS.step()
    def inside() -> None:
        for call in calls:
            call()

    @DBOS.workflow()
    def right() -> None:
        inside()

    assert wrong() == 3
    right()


def test_recorded_reads_survive_the_schedule(config: Config, database_url: str) -> None:
    """03 R122: a replay returns the recorded rows, and they can be pickled."""
    DBOS(config=config)

    @DBOS.workflow()
    def look() -> Any:
        return DBOS.get_schedule("s")

    DBOS.launch()
    create()
    with SetWorkflowID("w"):
        first = look()
    assert pickle.loads(pickle.dumps(first)) == first
    DBOS.delete_schedule("s")
    make_pending(database_url, "w")
    relaunch(config)
    assert DBOS.retrieve_workflow("w").get_result() == first
    DBOS.destroy(destroy_registry=True)
