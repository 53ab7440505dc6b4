"""Receiving messages (04 section 2.3): in order, once, recorded with a deadline, whoever has sent them."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dbos import DBOS, SendMessage, SetWorkflowID, WorkflowSerializationFormat
from dbos.engine.clock import Clock
from dbos.engine.engine import Engine
from dbos.error import DBOSException, DBOSWorkflowCancelledError
from tests.communication.test_messages import message_rows
from tests.helpers import make_pending, relaunch, replay, rows, step_names, step_rows, wait_for_status, wait_until

Config = dict[str, Any]
PORTABLE = WorkflowSerializationFormat.PORTABLE


def engine_of(app: type[DBOS]) -> Engine:
    engine = app(config=None).engine
    assert engine is not None
    return engine


def waiters(app: type[DBOS]) -> int:
    return len(engine_of(app).signals.awaited("message"))


def count_looks(app: type[DBOS], monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The looks into mailboxes from now on: whose, and for how many messages."""
    store, looks = engine_of(app).store, list[tuple[str, int]]()
    find_messages = store.find_messages

    def counted(workflow_id: str, topic: str, limit: int) -> Any:
        looks.append((workflow_id, limit))
        return find_messages(workflow_id, topic, limit)

    monkeypatch.setattr(store, "find_messages", counted)
    return looks


def insert(database_url: str, text: str, topic: str = "__null__topic__", serialization: str = "portable_json") -> None:
    """As another program would, with plain SQL (04 section 8.2)."""
    sql = "INSERT INTO notifications (destination_uuid, topic, message, serialization) VALUES ('w', %s, %s, %s)"
    rows(database_url, sql, topic, text, serialization)


def declare(count: int, topic: str | None = None, timeout_seconds: float = 60) -> Callable[[], Any]:
    @DBOS.workflow(name="receiver")
    def receiver() -> list[Any]:
        return [DBOS.recv(topic, timeout_seconds) for _ in range(count)]

    return receiver


def start(receiver: Callable[[], Any]) -> Any:
    with SetWorkflowID("w"):
        return DBOS.start_workflow(receiver)


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_what_is_there_comes_at_once_and_in_order(
    app: type[DBOS], config: Config, database_url: str, flavour: str
) -> None:
    """04 R120, R121, R123, R124, R126, R404: both steps are written, the value in the format of the message."""

    @DBOS.workflow()
    def sync_wf() -> Any:
        DBOS.send("w", "first", serialization_type=PORTABLE)
        DBOS.send_bulk([SendMessage("w", 2), SendMessage("w", 3)])
        return [DBOS.recv(), DBOS.recv(None, 0), DBOS.recv(timeout_seconds=-1)]

    @DBOS.workflow()
    async def async_wf() -> Any:
        await DBOS.send_async("w", "first", serialization_type=PORTABLE)
        await DBOS.send_bulk_async([SendMessage("w", 2), SendMessage("w", 3)])
        return [await DBOS.recv_async(), await DBOS.recv_async(None, 0), await DBOS.recv_async(timeout_seconds=-1)]

    assert start(sync_wf if flavour == "sync" else async_wf).get_result() == ["first", 2, 3]
    assert list(step_names(database_url, "w").values())[2:] == ["DBOS.recv", "DBOS.sleep"] * 3
    value, deadline = step_rows(database_url, "w")[2:4]
    assert (value["output"], value["serialization"]) == ('"first"', "portable_json")
    assert float(deadline["output"]) * 1000 >= deadline["started_at_epoch_ms"] + 59_000
    assert deadline["completed_at_epoch_ms"] == deadline["started_at_epoch_ms"]
    assert step_rows(database_url, "w")[4]["serialization"] == "py_pickle"
    found = message_rows(database_url, "w")
    assert [(bool(row["consumed"]), row["consumed_by_function_id"]) for row in found] == [(True, i) for i in (3, 5, 7)]
    rows(database_url, "DELETE FROM notifications")
    assert replay(config, "w") == ["first", 2, 3]


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_wait_ends_with_the_message(app: type[DBOS], database_url: str, flavour: str) -> None:
    """04 section 12, 1: at once, without any look by a clock."""

    @DBOS.workflow()
    async def async_wf() -> Any:
        return [await DBOS.recv_async("t"), await DBOS.recv_async("t")]

    handle = start(declare(2, "t") if flavour == "sync" else async_wf)
    for number in (1, 2):
        wait_until(lambda: step_names(database_url, "w").get(2 * number) == "DBOS.sleep")
        wait_until(lambda: waiters(app) == 1)
        DBOS.send("w", number, "t")
    assert handle.get_result() == [1, 2]


def test_a_message_of_another_program_is_noticed(app: type[DBOS], database_url: str) -> None:
    """04 section 8.2, R801: here with plain SQL, while the workflow waits and before."""
    handle = start(declare(3))
    wait_until(lambda: waiters(app) == 1)
    insert(database_url, '{"a" : [1]}')
    wait_until(lambda: len(step_names(database_url, "w")) > 2)
    insert(database_url, "2")
    insert(database_url, "null")
    assert handle.get_result() == [{"a": [1]}, 2, None]


@pytest.mark.parametrize("backend", ["postgres"])
def test_the_sql_function_sends(app: type[DBOS], database_url: str) -> None:
    """04 R723, R724: the text as given; an id given counts once."""
    handle = start(declare(3))
    wait_until(lambda: waiters(app) == 1)
    sql = "SELECT dbos.send_message('w', %s::json, NULL, %s)"
    for text, message_id in [('{"a" : 1}', None), ('"once"', "id"), ('"twice"', "id"), ("null", None)]:
        rows(database_url, sql, text, message_id)
    assert handle.get_result() == [{"a": 1}, "once", None]
    assert message_rows(database_url, "w")[0]["message"] == '{"a" : 1}'
    assert step_rows(database_url, "w")[0]["output"] == '{"a" : 1}'
    with pytest.raises(Exception, match="DBOS non-existent workflow"):
        rows(database_url, "SELECT dbos.send_message('nobody', '1'::json)")


@pytest.mark.empty_database
@pytest.mark.parametrize("backend", ["postgres"])
def test_without_notifications_a_message_is_found_by_looking(config: Config, database_url: str) -> None:
    """04 R803, R810: the trigger is made with the schema, or never."""
    DBOS(config={**config, "use_listen_notify": False})
    DBOS.launch()
    assert rows(database_url, "SELECT 1 FROM pg_trigger WHERE tgname = 'dbos_notifications_trigger'") == []
    handle = start(declare(2))
    wait_until(lambda: waiters(DBOS) == 1)
    insert(database_url, "1")
    wait_until(lambda: len(step_names(database_url, "w")) > 2)
    DBOS.send("w", 2)
    assert handle.get_result() == [1, 2]
    DBOS.destroy(destroy_registry=True)


def test_topics_are_queues_of_their_own(app: type[DBOS], database_url: str) -> None:
    """04 R125: `__null__topic__` is the one without a topic; a row without any is never received."""

    @DBOS.workflow()
    def workflow() -> list[Any]:
        for topic in ("b", None, "", "a"):
            DBOS.send("w", topic, topic)
        insert(database_url, '"never"', None)  # type: ignore[arg-type]
        return [DBOS.recv(topic, 0, default="nothing") for topic in ("a", "A", "", "__null__topic__", "b", None)]

    assert start(workflow).get_result() == ["a", "nothing", "", None, "b", "nothing"]


def test_without_a_message_the_default_comes_when_the_time_is_up(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 R121, R126, section 12, 7: recorded in the configured format, so a replay returns it as well."""

    @DBOS.workflow(name="waiting")
    def waiting() -> list[Any]:
        DBOS.send("w", None, "t")
        return [DBOS.recv(timeout_seconds=0.01), DBOS.recv("t", 0, default="none"), DBOS.recv("t", -1, default="none")]

    assert start(waiting).get_result() == [None, None, "none"]
    assert list(step_names(database_url, "w").values())[1:] == ["DBOS.recv", "DBOS.sleep"] * 3
    assert step_rows(database_url, "w")[1]["serialization"] == "py_pickle"
    insert(database_url, '"too late"')
    assert replay(config, "w") == [None, None, "none"]


def test_a_recovered_workflow_waits_until_the_deadline_first_planned(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 R127."""
    start(declare(1, timeout_seconds=3600))
    (deadline,) = wait_until(lambda: step_rows(database_url, "w"))
    DBOS.destroy(workflow_completion_timeout_sec=0)
    past = str(deadline["started_at_epoch_ms"] / 1000 - 10)
    rows(database_url, "UPDATE operation_outputs SET output = %s WHERE function_id = 2", past)
    relaunch(config)
    assert DBOS.retrieve_workflow("w").get_result() == [None]
    assert step_rows(database_url, "w")[1]["output"] == past


def test_after_the_deadline_a_message_that_is_there_is_taken(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 R120, R127."""
    start(declare(1, timeout_seconds=0.01)).get_result()
    insert(database_url, '"at the last moment"')
    rows(database_url, "DELETE FROM operation_outputs WHERE workflow_uuid = 'w' AND function_id = 1")
    assert replay(config, "w") == ["at the last moment"]


def test_a_record_without_a_value_is_an_error(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R120."""
    start(declare(1, timeout_seconds=0)).get_result()
    rows(database_url, "UPDATE operation_outputs SET output = NULL WHERE function_id = 1")
    with pytest.raises(Exception, match="neither a value nor an error"):
        replay(config, "w")


class Broken:
    """Can be stored, and not read."""

    def __reduce__(self) -> Any:
        return int, ("no number",)


@pytest.mark.parametrize(
    ("text", "serialization", "error"),
    [
        ("no JSON", "portable_json", json.JSONDecodeError),
        ("{}", "js_superjson", TypeError),
        ("not base64", "py_pickle", Exception),
        ("gAROLg", "py_pickle", Exception),
    ],
)
def test_a_message_that_cannot_be_read_is_an_error_once(
    app: type[DBOS], config: Config, database_url: str, text: str, serialization: str, error: type[Exception]
) -> None:
    """04 R128, 04 section 12, 9: with its id, recorded in place of the message; the next one comes behind it."""

    @DBOS.workflow(name="careful")
    def careful() -> list[Any]:
        try:
            DBOS.recv()
        except error as problem:
            return [str(problem), DBOS.recv()]
        return []

    handle = start(careful)
    wait_until(lambda: waiters(app) == 1)
    insert(database_url, text, serialization=serialization)
    insert(database_url, "2")
    found = handle.get_result()
    bad = message_rows(database_url, "w")[0]
    assert f"Message {bad['message_uuid']} (format {serialization}) cannot be read" in found[0]
    assert found[1] == 2
    assert (bool(bad["consumed"]), bad["consumed_by_function_id"], bad["message"]) == (True, 1, text)
    assert replay(config, "w") == found


def test_an_unreadable_message_that_nobody_catches_fails_the_workflow(app: type[DBOS], database_url: str) -> None:
    handle = start(declare(1))
    DBOS.send("w", Broken())
    with pytest.raises(ValueError, match=r"Message \S+ \(format py_pickle\) cannot be read.*invalid literal for int"):
        handle.get_result()


def test_who_loses_the_race_waits_until_its_own_deadline(app: type[DBOS], database_url: str) -> None:
    """04 R129, section 12, 6."""
    receivers = 5

    @DBOS.workflow()
    async def tasks() -> list[Any]:
        return await asyncio.gather(*[DBOS.recv_async("t", 3600) for _ in range(receivers)])

    handle = start(tasks)
    wait_until(lambda: len(step_names(database_url, "w")) == receivers)
    for number in range(receivers):
        wait_until(lambda: sum(bool(row["consumed"]) for row in message_rows(database_url, "w")) == number)
        DBOS.send("w", number, "t")
    assert sorted(handle.get_result()) == list(range(receivers))


@pytest.mark.parametrize("how", ["here", "elsewhere"])
def test_a_wait_ends_when_its_workflow_is_cancelled_and_the_message_comes_after_the_resume(
    app: type[DBOS], database_url: str, how: str
) -> None:
    """04 R122, R130, section 12, 2: no false timeout is recorded, nothing is lost."""
    stopped: list[type[BaseException]] = []

    @DBOS.workflow()
    def waiting() -> Any:
        try:
            return DBOS.recv(timeout_seconds=3600)
        except BaseException as error:
            stopped.append(type(error))
            raise

    start(waiting)
    wait_until(lambda: step_names(database_url, "w"))
    if how == "here":
        DBOS.cancel_workflow("w")
    else:
        rows(
            database_url, "UPDATE workflow_status SET status = 'CANCELLED', owner_xid = NULL WHERE workflow_uuid = 'w'"
        )
    wait_until(lambda: stopped)
    assert stopped == [DBOSWorkflowCancelledError]
    assert step_names(database_url, "w") == {2: "DBOS.sleep"}
    DBOS.send("w", "kept")
    assert [bool(row["consumed"]) for row in message_rows(database_url, "w")] == [False]
    assert DBOS.resume_workflow("w").get_result() == "kept"


def test_destroy_ends_every_wait_and_records_no_timeout(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 section 12, 2; the workflow waits again after the next launch."""
    start(declare(1, timeout_seconds=3600))
    wait_until(lambda: waiters(app) == 1 and step_names(database_url, "w") == {2: "DBOS.sleep"})
    relaunch(config)
    DBOS.send("w", "late")
    assert DBOS.retrieve_workflow("w").get_result() == ["late"]
    wait_for_status(database_url, "w", "SUCCESS")


def test_a_task_that_is_cancelled_leaves_no_waiter(app: type[DBOS], database_url: str) -> None:
    """04 R131: what comes then is for the next one."""

    @DBOS.workflow()
    async def workflow() -> Any:
        task = asyncio.ensure_future(DBOS.recv_async("t", 3600))
        while waiters(app) == 0 or len(step_names(database_url, "w")) == 0:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])
        before = waiters(app)
        await DBOS.send_async("w", 1, "t")
        return [task.cancelled(), before, await DBOS.recv_async("t")]

    assert start(workflow).get_result() == [True, 0, 1]


@pytest.mark.parametrize("timeout", [None, "5", True, float("nan")])
def test_a_timeout_that_is_no_number_is_refused(app: type[DBOS], timeout: Any) -> None:
    """04 R130."""

    @DBOS.workflow()
    def workflow() -> None:
        with pytest.raises(TypeError, match="timeout_seconds of recv must be a number"):
            DBOS.recv(timeout_seconds=timeout)
        with pytest.raises(DBOSException, match="topic must be a text"):
            DBOS.recv(5)  # type: ignore[arg-type]

    workflow()


def test_messages_are_received_in_workflow_code_only(app: type[DBOS]) -> None:
    """04 section 1.3."""

    @DBOS.step()
    def step() -> None:
        DBOS.recv()

    @DBOS.workflow()
    def workflow() -> None:
        with pytest.raises(DBOSException, match="recv must be called from within a workflow"):
            step()

    workflow()
    with pytest.raises(DBOSException, match="recv must be called from within a workflow"):
        DBOS.recv()


def test_a_full_mailbox_is_read_in_windows(app: type[DBOS], monkeypatch: pytest.MonkeyPatch) -> None:
    """04 section 11, 44: what is there is not read again for every message; none is left out, and the order stays."""
    looks = count_looks(app, monkeypatch)

    @DBOS.workflow()
    async def workflow() -> list[Any]:
        await DBOS.send_bulk_async([SendMessage("w", number) for number in range(500)])
        found = [await DBOS.recv_async() for _ in range(500)]
        # Large ones are not collected.
        await DBOS.send_bulk_async([SendMessage("w", "x" * 300_000) for _ in range(4)])
        return found + [len(await DBOS.recv_async()) for _ in range(4)]

    assert start(workflow).get_result() == [*range(500), *[300_000] * 4]
    limits = [limit for _, limit in looks]
    assert limits[:4] == [1, 4, 16, 64]
    assert max(limits) == 128
    assert len(limits) < 14


def test_thousands_that_wait_cost_no_thread_and_no_query_each(app: type[DBOS], monkeypatch: pytest.MonkeyPatch) -> None:
    """04 R8, section 11, 47: one look for all."""
    count = 500
    store, looks = engine_of(app).store, list[int]()
    find_filled = store.find_filled_mailboxes

    def counted(wanted: Any) -> Any:
        looks.append(len(wanted))
        return find_filled(wanted)

    monkeypatch.setattr(store, "find_filled_mailboxes", counted)

    @DBOS.workflow()
    async def waiting() -> Any:
        return await DBOS.recv_async("t", 3600)

    async def main() -> list[Any]:
        handles = []
        for number in range(count):
            with SetWorkflowID(f"w{number}"):
                handles.append(await DBOS.start_workflow_async(waiting))
        while waiters(app) < count:
            await asyncio.sleep(0.01)
        assert threading.active_count() < 60
        engine_of(app).watcher.look_now()
        while count not in looks:
            await asyncio.sleep(0.01)
        await DBOS.send_bulk_async([SendMessage(f"w{number}", number, "t") for number in range(count)])
        return [await handle.get_result() for handle in handles]

    assert asyncio.run(main()) == list(range(count))


def test_a_crash_between_deadline_and_message_loses_nothing(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R122: f is missing, f+1 is there, and the message too."""
    handle = start(declare(1))
    DBOS.send("w", 1)
    handle.get_result()
    rows(database_url, "DELETE FROM operation_outputs WHERE workflow_uuid = 'w' AND function_id = 1")
    rows(database_url, "UPDATE notifications SET consumed = FALSE, consumed_by_function_id = NULL")
    make_pending(database_url, "w")
    relaunch(config)
    assert DBOS.retrieve_workflow("w").get_result() == [1]


def test_deadlines_are_of_the_host_and_times_of_messages_of_the_database(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """04 R9: here the clock of the engine is a day ahead of that of the database."""
    day = 86_400
    monkeypatch.setattr(Clock, "now", lambda _: time.time() + day)
    monkeypatch.setattr(Clock, "now_ms", lambda _: int((time.time() + day) * 1000))
    handle = start(declare(1, timeout_seconds=100))
    wait_until(lambda: step_rows(database_url, "w"))
    DBOS.send("w", 1)
    assert handle.get_result() == [1]
    now = time.time()
    assert abs(float(step_rows(database_url, "w")[1]["output"]) - (now + day + 100)) < 90
    assert abs(message_rows(database_url, "w")[0]["created_at_epoch_ms"] / 1000 - now) < 90


def test_another_operation_at_the_id_is_an_error(app: type[DBOS], config: Config, database_url: str) -> None:
    """04 R2."""
    start(declare(1, timeout_seconds=0)).get_result()
    rows(database_url, "UPDATE operation_outputs SET function_name = 'other' WHERE function_id = 1")
    with pytest.raises(DBOSException, match=r"DBOS\.recv.*other|other.*DBOS\.recv"):
        replay(config, "w")


@pytest.mark.usefixtures("dbos_log")
def test_no_payload_is_logged(app: type[DBOS], database_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """04 section 11, 34."""
    caplog.set_level(logging.WARNING)
    handle = start(declare(1))
    insert(database_url, "secret", serialization="portable_json")
    with pytest.raises(json.JSONDecodeError):
        handle.get_result()
    assert not any("secret" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("backend", ["postgres"])
def test_where_every_message_is_announced_an_empty_mailbox_is_not_read_again(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """04 section 12.1: who plays back and forth does not ask the database whether anything has come meanwhile."""
    store, looks = engine_of(app).store, count_looks(app, monkeypatch)
    # What looks for all of them once per second would make them look, too.
    monkeypatch.setattr(store, "find_filled_mailboxes", lambda wanted: [])
    wait_until(lambda: store.hears_messages)

    @DBOS.workflow()
    def pong(rounds: int) -> Any:
        found = []
        for _ in range(rounds):
            found.append(DBOS.recv(timeout_seconds=60))
            DBOS.send("ping", None)
        # Who would give up looks first, whatever is known.
        return [*found, DBOS.recv(timeout_seconds=0)]

    @DBOS.workflow()
    def ping(rounds: int) -> None:
        for number in range(rounds):
            DBOS.send("w", number)
            DBOS.recv(timeout_seconds=60)

    with SetWorkflowID("w"):
        handle = DBOS.start_workflow(pong, 20)
    wait_until(lambda: waiters(app) == 1)
    with SetWorkflowID("ping"):
        DBOS.start_workflow(ping, 20)
    assert handle.get_result() == [*range(20), None]
    assert [workflow_id for workflow_id, _ in looks].count("w") == 2
    wait_until(lambda: not engine_of(app).signals._listeners)


@pytest.mark.parametrize("backend", ["postgres"])
def test_a_message_that_nobody_announced_is_found_in_a_mailbox_known_to_be_empty(
    app: type[DBOS], database_url: str
) -> None:
    """04 R8: notifications may get lost; the look for all that wait finds it."""
    wait_until(lambda: engine_of(app).store.hears_messages)
    handle = start(declare(3))
    wait_until(lambda: waiters(app) == 1)
    DBOS.send("w", 1)
    rows(database_url, "DROP TRIGGER dbos_notifications_trigger ON notifications")
    insert(database_url, "2")
    wait_until(lambda: 3 in step_names(database_url, "w"))
    insert(database_url, "3")
    assert handle.get_result() == [1, 2, 3]
