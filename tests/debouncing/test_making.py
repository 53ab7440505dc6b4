"""Making debouncers, and where they may be called (03 section 11)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, Debouncer
from dbos.error import DBOSException, DBOSWorkflowFunctionNotFoundError
from tests.debouncing.looking import LONG, stored_inputs, workflows
from tests.helpers import declare_echo, rows, status_row

Config = dict[str, Any]

# --- making debouncers (R155, section 11.1)


def test_making_a_debouncer_needs_no_application_and_changes_nothing() -> None:
    echo = declare_echo()
    assert isinstance(Debouncer.create(echo, debounce_timeout_sec=5, queue="mail"), Debouncer)
    assert isinstance(Debouncer("unknown to anybody"), Debouncer)
    # R155: no instance.
    with pytest.raises(DBOSException, match="Construct it"):
        Debouncer.create(echo).debounce("key", 1, 1)


def test_an_application_that_is_not_launched_cannot_debounce(config: Config) -> None:
    """03 R155."""
    debouncer = Debouncer.create(declare_echo())
    DBOS(config=config)
    with pytest.raises(DBOSException, match="launch"):
        debouncer.debounce("key", 1, 1)


def test_only_plain_and_static_workflow_functions_can_be_debounced(app: type[DBOS], database_url: str) -> None:
    """03 section 11.1."""

    @DBOS.dbos_class("Shop")
    class Shop:
        @classmethod
        @DBOS.workflow(name="class_work")
        def class_work(cls, value: int) -> int:
            return value

        @staticmethod
        @DBOS.workflow(name="static_work")
        def static_work(value: int) -> int:
            return value + 1

        def plain(self) -> None: ...

    class Undecorated:
        @DBOS.workflow(name="instance_work")
        def instance_work(self, value: int) -> int:
            return value

    with pytest.raises(TypeError, match="class_work"):
        Debouncer.create(Shop.class_work)
    with pytest.raises(TypeError, match="plain"):
        Debouncer.create(Shop().plain)
    with pytest.raises(TypeError, match="instance_work"):
        Debouncer.create(Undecorated.instance_work)
    with pytest.raises(TypeError, match="class_work"):
        Debouncer("class_work").debounce("key", 0, 1)
    with pytest.raises(DBOSWorkflowFunctionNotFoundError, match="declare_echo"):
        Debouncer.create(declare_echo)
    assert workflows(database_url) == []
    handle = Debouncer.create(Shop.static_work).debounce("key", 0, 1)
    assert handle.get_result() == 2
    assert status_row(database_url, handle.workflow_id)["class_name"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"workflow_name": ""},
        {"workflow_name": 5},
        {"workflow_name": "a\0b"},
        {"debounce_timeout_sec": -1},
        {"debounce_timeout_sec": "5"},
        {"debounce_timeout_sec": float("nan")},
        {"queue": ""},
        {"queue": 5},
        {"application_name": ""},
        {"application_name": 5},
    ],
    ids=repr,
)
def test_a_debouncer_refuses_arguments_without_meaning(arguments: dict[str, Any]) -> None:
    with pytest.raises(DBOSException) as refused:
        Debouncer(**({"workflow_name": "echo"} | arguments))
    (value,) = arguments.values()
    assert repr(value).strip("'") in str(refused.value) or "\\x00" in repr(value)


@pytest.mark.parametrize(
    "given", [(None, 1), (5, 1), ("a\0b", 1), ("a", "1"), ("a", float("inf")), ("a", True)], ids=repr
)
def test_a_key_is_a_text_and_a_period_a_number(app: type[DBOS], database_url: str, given: Any) -> None:
    declare_echo()
    with pytest.raises(DBOSException):
        Debouncer("echo").debounce(*given, 1)
    assert workflows(database_url) == []


def test_an_unknown_workflow_or_queue_is_refused_when_debouncing(app: type[DBOS], database_url: str) -> None:
    """03 R155."""
    declare_echo()
    with pytest.raises(Exception, match="'nowhere'"):
        Debouncer("nowhere").debounce("key", 0, 1)
    with pytest.raises(Exception, match="'no queue'"):
        Debouncer("echo", queue="no queue").debounce("key", 0, 1)
    assert workflows(database_url) == []
    DBOS.register_queue("no queue")
    assert Debouncer("echo", queue="no queue").debounce("key", 0, 1).get_result() == 1


# --- where it may be called (R160, R161)


def test_in_a_step_a_bounce_works_and_a_new_workflow_is_refused(app: type[DBOS], database_url: str) -> None:
    """03 R160."""
    debouncer = Debouncer.create(declare_echo())
    handle = debouncer.debounce("held", LONG, 1)

    @DBOS.step()
    def bounce() -> str:
        return debouncer.debounce("held", LONG, 2).workflow_id

    @DBOS.step()
    def begin() -> str:
        return debouncer.debounce("free", LONG, 2).workflow_id

    @DBOS.workflow()
    def parent() -> str:
        with pytest.raises(AssertionError, match="step"):
            begin()
        return bounce()

    assert parent() == handle.workflow_id
    assert stored_inputs(handle.workflow_id) == (2,)
    assert len(rows(database_url, "SELECT 1 FROM workflow_status WHERE name = 'echo'")) == 1


def test_sync_calls_in_an_event_loop(app: type[DBOS]) -> None:
    """03 R161: refused with a queue, merely blocking without."""
    DBOS.register_queue("mail")
    declare_echo()

    async def main() -> None:
        with pytest.raises(RuntimeError, match="debounce_async"):
            Debouncer("echo", queue="mail").debounce("key", 0, 1)
        handle = Debouncer("echo").debounce("key", 0, 1)
        assert await (await DBOS.retrieve_workflow_async(handle.workflow_id)).get_result() == 1
        by_queue = await Debouncer("echo", queue="mail").debounce_async("key", 0, 2)
        assert await by_queue.get_result() == 2

    asyncio.run(main())


async def test_async_workflows_are_debounced(config: Config) -> None:
    """03 section 11.1."""
    DBOS(config=config)

    @DBOS.workflow(name="work")
    async def work(value: int, *, factor: int = 1) -> int:
        await asyncio.sleep(0)
        return value * factor

    DBOS.launch()
    debouncer = Debouncer.create_async(work)
    first = await debouncer.debounce_async("key", LONG, 2)
    second = await debouncer.debounce_async("key", 0, 3, factor=5)
    assert first.workflow_id == second.workflow_id
    assert [await first.get_result(), await second.get_result()] == [15, 15]
    await asyncio.to_thread(DBOS.destroy, destroy_registry=True)
