"""Names to functions, classes and instances; the version computed from sources."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import pytest

from dbos.engine.registry import TEMPORARY_PREFIX, Registry, WorkflowInfo
from dbos.error import DBOSException


class Configured:
    def __init__(self, config_name: str) -> None:
        self.config_name = config_name


class Derived(Configured):
    pass


def one() -> int:
    return 1


def two() -> int:
    return 2


def info(name: str, function: Callable[..., Any] = one, **given: Any) -> WorkflowInfo:
    return WorkflowInfo(name, function, False, source=function, **given)


def elsewhere(source: str = "def one(): return 1\n") -> Callable[..., Any]:
    """A function of another module and another file."""
    module = types.ModuleType("elsewhere")
    exec(compile(source, "elsewhere.py", "exec"), module.__dict__)
    function: Callable[..., Any] = module.__dict__["one"]
    function.__module__ = "elsewhere"
    return function


def test_the_newer_function_replaces_the_older_with_a_warning(caplog: pytest.LogCaptureFixture, dbos_log: None) -> None:
    registry = Registry()
    registry.register_workflow(info("flow", one))
    registry.register_workflow(info("flow", one))
    assert caplog.text == ""
    registry.register_workflow(info("flow", two))
    assert registry.workflows["flow"].function is two
    assert "Workflow 'flow'" in caplog.text
    registry.register_workflow(info(TEMPORARY_PREFIX + "charge", one))
    registry.register_workflow(info(TEMPORARY_PREFIX + "charge", two))
    assert "Step 'charge'" in caplog.text


def test_one_name_in_two_modules_is_a_mistake() -> None:
    registry = Registry()
    registry.register_workflow(info("flow", one))
    with pytest.raises(DBOSException, match=r"'flow'.*twice.*tests\.engine\.test_registry.*elsewhere"):
        registry.register_workflow(info("flow", elsewhere()))
    assert registry.workflows["flow"].function is one
    # Steps are found through the function object, never by name.
    registry.register_workflow(info(TEMPORARY_PREFIX + "s", one))
    registry.register_workflow(info(TEMPORARY_PREFIX + "s", elsewhere()))


def test_two_classes_cannot_share_a_name() -> None:
    registry = Registry()
    first = registry.register_class("Shop", Configured)
    assert registry.register_class("Shop", Configured) is first
    with pytest.raises(Exception, match=r"'Shop'.*class_name="):
        registry.register_class("Shop", Derived)


def test_a_class_is_found_through_what_it_derives_from() -> None:
    registry = Registry()
    base = registry.register_class("Shop", Configured)
    assert registry.class_of(Derived) is base
    derived = registry.register_class("Sub", Derived)
    assert registry.class_of(Derived) is derived
    assert registry.class_of(Configured) is base
    assert registry.class_of(int) is None


def test_instances_are_known_by_class_and_config_name(caplog: pytest.LogCaptureFixture, dbos_log: None) -> None:
    registry = Registry()
    registry.register_class("Shop", Configured)
    main = Configured("main")
    registry.register_instance(main)
    registry.register_instance(main)
    registry.register_instance(Configured("other"))
    assert registry.instances["Shop/main"] is main
    with pytest.raises(Exception, match=r"'Shop'.*'main'"):
        registry.register_instance(Configured("main"))
    assert caplog.text == ""
    registry.launched = True
    registry.register_instance(Configured("late"))
    assert "Shop/late" in caplog.text


def test_the_receiver_of_a_stored_method_is_found_or_what_is_missing_is_said() -> None:
    registry = Registry()
    registry.register_class("Shop", Configured)
    main = Configured("main")
    registry.register_instance(main)
    find = registry.find_receiver
    assert find(info("f"), None, None) is None
    assert find(info("f", kind="static"), "Shop", None) is None
    assert find(info("f", kind="class"), "Shop", None) is Configured
    assert find(info("f", kind="instance"), "Shop", "main") is main
    with pytest.raises(LookupError, match="'Gone'"):
        find(info("f", kind="class"), "Gone", None)
    with pytest.raises(LookupError, match=r"'gone'.*'Shop'"):
        find(info("f", kind="instance"), "Shop", "gone")


def version(*infos: WorkflowInfo, name: str = "app") -> str:
    registry = Registry()
    for one_info in infos:
        registry.register_workflow(one_info)
    return registry.compute_version(name)


def test_the_version_follows_the_source_of_workflows_and_the_names_of_steps() -> None:
    base = version(info("a", one), info("b", two))
    assert base == version(info("b", two), info("a", one)), "the order of registration does not matter"
    assert base != version(info("a", one))
    assert base != version(info("a", one), info("b", two), name="other")
    assert base != version(info("a", one), info("b", two), info(TEMPORARY_PREFIX + "s", one))
    step_of_one, step_of_two = (version(info(TEMPORARY_PREFIX + "s", f)) for f in (one, two))
    assert step_of_one == step_of_two, "editing a step changes nothing"
    wrapped = functools.wraps(one)(lambda: one())
    assert version(info("a", wrapped), info("b", two)) == base
    assert len(base) == 32


def test_without_source_the_version_is_a_default_and_the_log_says_why(
    caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    assert version(info("a", elsewhere())) == "DEFAULT_VERSION-app"
    assert "application_version" in caplog.text


def test_the_functions_own_roles_replace_those_of_its_class() -> None:
    registry = Registry()
    owner = registry.register_class("Shop", Configured)
    owner.default_roles = ["user"]
    assert info("f").roles is None
    assert info("f", owner=owner).roles == ["user"]
    assert info("f", owner=owner, required_roles=["admin"]).roles == ["admin"]
    assert info("f", owner=owner, required_roles=[]).roles == []
