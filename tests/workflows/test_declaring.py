"""What the decorator of workflows promises about names, kinds of functions and registration (02 section 2.1)."""

from __future__ import annotations

import functools
import inspect
import logging
import types
from collections.abc import Callable
from typing import Any

import pytest

from dbos import DBOS
from dbos.error import DBOSException
from tests.helpers import relaunch, replay, rows, status_row

Config = dict[str, Any]


def test_the_bare_decorator_without_parentheses_is_a_type_error() -> None:
    """02 section 2.1: all parameters are keyword-only."""
    with pytest.raises(TypeError):

        @DBOS.workflow  # type: ignore[call-arg]
        def wf() -> None: ...

    with pytest.raises(TypeError):

        @DBOS.step  # type: ignore[call-arg]
        def step() -> None: ...


def test_the_wrapper_keeps_the_name_the_docstring_and_the_function() -> None:
    """02 R5."""

    def plain(a: int) -> int:
        """Doc."""
        return a

    wrapped = DBOS.workflow()(plain)
    assert wrapped.__name__ == "plain"
    assert wrapped.__doc__ == "Doc."
    assert wrapped.__qualname__ == plain.__qualname__
    assert wrapped.__wrapped__ is plain  # type: ignore[attr-defined]
    assert inspect.signature(wrapped) == inspect.signature(plain)


def test_the_wrapper_is_a_coroutine_function_exactly_when_the_function_is() -> None:
    """02 R4."""

    @DBOS.workflow()
    def sync_wf() -> None: ...

    @DBOS.workflow()
    async def async_wf() -> None: ...

    @DBOS.step()
    async def async_step() -> None: ...

    assert not inspect.iscoroutinefunction(sync_wf)
    assert inspect.iscoroutinefunction(async_wf)
    assert inspect.iscoroutinefunction(async_step)


def test_the_registered_name_is_the_qualified_name_or_the_given_one(app: type[DBOS], database_url: str) -> None:
    """02 section 2.1."""

    @DBOS.workflow()
    def unnamed() -> int:
        return 1

    @DBOS.workflow(name="a name with spaces")
    def named() -> int:
        return 2

    assert (unnamed(), named()) == (1, 2)
    names = {row["name"] for row in rows(database_url, "SELECT name FROM workflow_status")}
    assert names == {unnamed.__qualname__, "a name with spaces"}


def test_generator_functions_fail_when_their_result_is_stored(app: type[DBOS], database_url: str) -> None:
    """02 R4: they count as sync, and a generator cannot be serialized."""

    @DBOS.workflow()
    def generator() -> Any:
        yield 1

    handle = DBOS.start_workflow(generator)
    with pytest.raises(TypeError, match="generator"):
        handle.get_result()
    assert status_row(database_url, handle.workflow_id)["status"] == "ERROR"


def test_a_decorator_below_runs_always_and_one_above_only_on_direct_calls(app: type[DBOS], config: Config) -> None:
    """02 R5."""
    seen: list[str] = []

    def noting(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(function)
            def call(*args: Any) -> Any:
                seen.append(what)
                return function(*args)

            return call

        return decorate

    @noting("above")
    @DBOS.workflow()
    @noting("below")
    def wf(value: int) -> int:
        return value

    assert wf(1) == 1
    assert seen == ["above", "below"]
    seen.clear()
    handle = DBOS.start_workflow(wf, 2)
    assert handle.get_result() == 2
    assert seen == ["below"]
    seen.clear()
    assert replay(config, handle.workflow_id) == 2
    assert seen == ["below"]


def test_workflows_may_be_registered_before_construction_after_it_and_after_launch(config: Config) -> None:
    """02 R6."""

    @DBOS.workflow()
    def before() -> str:
        return "before"

    DBOS(config=config)

    @DBOS.workflow()
    def between() -> str:
        return "between"

    DBOS.launch()

    @DBOS.workflow()
    def after() -> str:
        return "after"

    assert [before(), between(), after()] == ["before", "between", "after"]
    assert DBOS.start_workflow(after).get_result() == "after"
    DBOS.destroy(destroy_registry=True)


def test_a_name_registered_twice_keeps_both_bodies_apart(
    app: type[DBOS], config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    """02 R7, R8: the newer replaces the older by name; the older function object still runs its own body."""

    @DBOS.workflow(name="twice")
    def old() -> str:
        return "old"

    logging.getLogger("dbos").propagate = True
    with caplog.at_level(logging.WARNING, logger="dbos"):

        @DBOS.workflow(name="twice")
        def new() -> str:
            return "new"

    assert any("twice" in record.getMessage() for record in caplog.records)
    assert old() == "old"
    handle = DBOS.start_workflow(old)
    assert handle.get_result() == "old"
    assert new() == "new"
    assert replay(config, handle.workflow_id) == "new"


def test_one_name_from_two_modules_and_two_files_is_refused() -> None:
    """02 R7: decoration names the operation and both origins."""
    module = types.ModuleType("somewhere_else")
    code = compile("def clash():\n    return 1\n", "/elsewhere/else.py", "exec")
    exec(code, module.__dict__)

    @DBOS.workflow(name="clash")
    def clash() -> None: ...

    module.clash.__module__ = "somewhere_else"
    with pytest.raises(DBOSException) as refused:
        DBOS.workflow(name="clash")(module.clash)
    for part in ("clash", __name__, "somewhere_else"):
        assert part in str(refused.value)
    # 02 R9: steps only warn.
    DBOS.step(name="step clash")(clash)
    DBOS.step(name="step clash")(module.clash)


@pytest.mark.parametrize("value", [-1, 1.5, True, "3"])
def test_max_recovery_attempts_must_be_a_whole_number_or_none(value: Any) -> None:
    """02 section 2.1."""
    with pytest.raises(DBOSException, match="max_recovery_attempts"):
        DBOS.workflow(max_recovery_attempts=value)


def test_auto_upgrade_is_accepted_and_never_prevents_a_launch(app: type[DBOS], config: Config) -> None:
    """02 R275."""

    @DBOS.workflow(auto_upgrade=True)
    def wf() -> int:
        return 5

    relaunch(config)
    assert wf() == 5


def test_after_destroying_the_registry_functions_no_longer_run_by_direct_call(config: Config) -> None:
    """02 R224."""

    @DBOS.workflow()
    def wf() -> int:
        return 1

    DBOS(config=config)
    DBOS.launch()
    assert wf() == 1
    DBOS.destroy(destroy_registry=True)
    with pytest.raises(DBOSException):
        wf()


def test_after_a_relaunch_in_the_same_process_functions_work_again(app: type[DBOS], config: Config) -> None:
    """02 R223."""

    @DBOS.workflow()
    def wf(value: int) -> int:
        return value + 1

    assert wf(1) == 2
    relaunch(config)
    assert wf(2) == 3
    assert DBOS.start_workflow(wf, 3).get_result() == 4


def test_a_name_the_database_cannot_hold_is_refused_at_decoration() -> None:
    """A stored name must be storable on every backend."""
    with pytest.raises(DBOSException):

        @DBOS.workflow(name="a\0b")
        def wf() -> None: ...
