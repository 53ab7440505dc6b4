"""The public surface equals that of API level 3.4.0, as far as it exists (01 section 1, 02 R1).

`data/surface-3.4.0.json` lists names, parameters and defaults. The lists of what is missing below have to be
exact, so whoever adds a name takes it off.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import json
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

import dbos
from dbos import DBOS, DBOSClient, error

SURFACE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "surface-3.4.0.json").read_text(encoding="utf-8")
)

# Names of the package root that later chapters bring.
NOT_YET_EXPORTED = {
    "AsyncSQLAlchemyDatasource",
    "PropagateOtelContext",
    "SQLAlchemyDatasource",
}

# Members of DBOS that later chapters bring; "*" stands for the blocking form and its _async twin.
_NOT_YET_IN_DBOS = """
    alert_handler span tracer
"""
_NOT_YET_IN_CLIENT = ""


def _forms(names: str) -> set[str]:
    return {
        form for name in names.split() for form in ([name[:-1], f"{name[:-1]}_async"] if name.endswith("*") else [name])
    }


NOT_YET_IN_DBOS = _forms(_NOT_YET_IN_DBOS)
NOT_YET_IN_CLIENT = _forms(_NOT_YET_IN_CLIENT)

# Beyond the list: arguments and keys of ours, all of them optional.
OURS: dict[str, set[str]] = {
    "DBOSClient": {"polling_interval_sec", "portable_serializer", "unpickle_only"},
    "DBOSConfig": {"portable_serializer", "unpickle_only"},
    "ClientScheduleInput": {"overlap", "catch_up"},
    "create_schedule": {"overlap", "catch_up"},
    "create_schedule_async": {"overlap", "catch_up"},
    "ScheduleInput": {"overlap", "catch_up"},
    "get_result": {"timeout_seconds"},
    "get_result_async": {"timeout_seconds"},
    "get_event": {"default", "while_active"},
    "get_event_async": {"default", "while_active"},
    "workflow": {"stored_result"},
    "write_stream": {"must_be_open"},
    "write_stream_async": {"must_be_open"},
    "recv": {"default"},
    "recv_async": {"default"},
    "WorkflowSchedule": {"overlap", "catch_up", "problem"},
    "list_workflows": {"after"},
    "list_workflows_async": {"after"},
    "list_queued_workflows": {"after"},
    "list_queued_workflows_async": {"after"},
}
# What we offer beyond the list.
OURS_EXPORTED = {"EnqueueItem", "MessageInfo"}
OURS_IN_DBOS = {
    "destroy_async",
    "enqueue_workflows",
    "enqueue_workflows_async",
    "list_messages",
    "list_messages_async",
}
OURS_IN_CLIENT = {
    "backfill_schedule_async",
    "destroy_async",
    "enqueue_in_transaction_async",
    "get_all_events",
    "get_all_events_async",
    "list_messages",
    "list_messages_async",
    "pause_schedule_async",
    "resume_schedule_async",
    "send_bulk_in_transaction_async",
    "send_in_transaction_async",
    "trigger_schedule_async",
}
# `with` is offered where the list has no context manager.
OURS_WITH = {"DBOSClient"}


def present(kind: str) -> list[str]:
    """The entries of a section of the list that we export."""
    return sorted(name for name in SURFACE[kind] if hasattr(dbos, name))


def parameters(function: Any) -> list[tuple[str, str, str]]:
    """Name, kind and default of each parameter, without self and cls."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return []
    return [
        (parameter.name, parameter.kind.name, _default(parameter.default))
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]


def _default(value: Any) -> str:
    return "" if value is inspect.Parameter.empty else repr(value)


def listed_parameters(signature: str) -> list[tuple[str, str, str]]:
    """The same for a signature in the list."""
    namespace: dict[str, Any] = {"WorkflowSerializationFormat": dbos.WorkflowSerializationFormat}
    # Defaults in repr form that are no expressions, such as <Format.DEFAULT: 'None'>, become texts.
    text = signature.replace("<", "'<").replace(">", ">'") if "<" in signature else signature
    exec(f"def listed{text}: ...", namespace)
    found = parameters(namespace["listed"])
    return [(name, kind, default.strip("\"'") if "<" in default else default) for name, kind, default in found]


def test_the_package_exports_the_listed_names_and_no_others() -> None:
    listed = set(SURFACE["exports"])
    assert len(listed) == 41
    assert set(dbos.__all__) - listed == OURS_EXPORTED
    assert listed - set(dbos.__all__) == NOT_YET_EXPORTED
    for name in dbos.__all__:
        assert getattr(dbos, name) is not None, name


def test_the_members_of_dbos_are_the_listed_ones() -> None:
    listed = set(SURFACE["classes"]["DBOS"]["members"])
    ours = {name for name in dir(DBOS) if not name.startswith("_")}
    assert listed - ours == NOT_YET_IN_DBOS
    assert ours - listed == OURS_IN_DBOS


@pytest.mark.parametrize("member", sorted(name for name in SURFACE["classes"]["DBOS"]["members"] if name in dir(DBOS)))
def test_a_member_of_dbos_has_the_listed_signature(member: str) -> None:
    listed = SURFACE["classes"]["DBOS"]["members"][member]
    ours = inspect.getattr_static(DBOS, member)
    if "signature" not in listed:
        assert not callable(ours), f"DBOS.{member} must be read, not called"
        return
    function = getattr(DBOS, member)
    ours_too = OURS.get(member, set())
    assert [p for p in parameters(function) if p[0] not in ours_too] == listed_parameters(listed["signature"])
    assert all(default for name, _, default in parameters(function) if name in ours_too)
    # 02 section 11: the twins are coroutine functions, the others are not.
    assert inspect.iscoroutinefunction(function) == (listed["call"] == "async")
    # 01 R54: class and instance methods are the same.
    assert getattr(object.__new__(DBOS), member) is not None


@pytest.mark.parametrize("name", [name for name in present("classes") if name != "DBOSConfig"])
def test_a_class_has_the_listed_constructor_and_members(name: str) -> None:
    listed = SURFACE["classes"][name]
    ours = getattr(dbos, name)
    constructor = listed.get("constructor")
    if constructor is not None and "signature" in constructor:
        own = [parameter for parameter in parameters(ours) if parameter[0] not in OURS.get(name, ())]
        assert own == listed_parameters(constructor["signature"])
    if name == "DBOS":
        return
    missing = NOT_YET_IN_CLIENT if name == "DBOSClient" else set()
    assert {member for member in listed.get("members", {}) if not hasattr(ours, member)} - _attributes(ours) == missing
    for member, facts in listed.get("members", {}).items():
        if member in missing:
            continue
        if "signature" in facts:
            ours_too = OURS.get(member, set())
            found = [p for p in parameters(getattr(ours, member)) if p[0] not in ours_too]
            assert found == listed_parameters(facts["signature"]), member
            is_async = inspect.iscoroutinefunction(getattr(ours, member))
            assert is_async == (facts.get("call") == "async"), member
        else:
            assert member in _attributes(ours), member
    made = vars(ours("a")) if name == "DBOSConfiguredInstance" else {}
    assert set(listed.get("attributes", ())) <= {*_attributes(ours), *made}
    assert (bool(listed.get("context_manager")) or name in OURS_WITH) == (
        hasattr(ours, "__enter__") and hasattr(ours, "__exit__")
    )
    known_bases = [base for base in listed.get("bases", ()) if hasattr(dbos, base)]
    for base in known_bases:
        assert issubclass(ours, getattr(dbos, base)), base


def test_the_members_of_a_client_are_the_listed_ones() -> None:
    listed = set(SURFACE["classes"]["DBOSClient"]["members"])
    ours = {name for name in dir(DBOSClient) if not name.startswith("_")}
    assert listed - ours == NOT_YET_IN_CLIENT
    assert ours - listed == OURS_IN_CLIENT


def _attributes(cls: type[Any]) -> set[str]:
    return {*dir(cls), *(name for base in cls.__mro__ for name in getattr(base, "__annotations__", {}))}


@pytest.mark.parametrize("name", present("typed_dicts"))
def test_a_typed_dictionary_has_the_listed_keys(name: str) -> None:
    listed = SURFACE["typed_dicts"][name]
    ours = getattr(dbos, name)
    assert set(ours.__annotations__) - OURS.get(name, set()) == set(listed["keys"])
    assert sorted(ours.__required_keys__) == sorted(listed["required"])


@pytest.mark.parametrize("name", sorted(SURFACE["enums"]))
def test_an_enumeration_has_the_listed_values(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    ours = getattr(error if module else dbos, attribute)
    assert {member.name: member.value for member in ours} == SURFACE["enums"][name]
    bases = SURFACE["enum_bases"].get(name, ["Enum"])
    assert issubclass(ours, enum.Enum)
    assert issubclass(ours, str) == ("str" in bases)


@pytest.mark.parametrize("name", present("type_aliases"))
def test_a_policy_allows_the_listed_values(name: str) -> None:
    assert list(typing.get_args(getattr(dbos, name))) == SURFACE["type_aliases"][name]


@pytest.mark.parametrize("name", sorted(SURFACE["functions"]))
def test_a_function_has_the_listed_signature(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    ours = getattr(error if module else dbos, attribute)
    assert parameters(ours) == listed_parameters(SURFACE["functions"][name]["signature"])


@pytest.mark.parametrize("name", sorted(SURFACE["errors"]))
def test_an_error_has_the_listed_code_constructor_and_attributes(name: str) -> None:
    # 02 R225
    listed = SURFACE["errors"][name]
    ours = getattr(error, name)
    base = listed["base"]
    assert issubclass(
        ours, getattr(error, base, None) or {"Exception": Exception, "BaseException": BaseException}[base]
    )
    assert parameters(ours.__init__) == listed_parameters(listed["constructor"]["signature"])
    samples = {"errors": [ValueError("x")], "max_retries": 3, "step_id": 1, "timeout_seconds": 2.0}
    required = [name for name, _, default in parameters(ours.__init__) if not default]
    made = ours(*(samples.get(parameter, "x") for parameter in required))
    assert made.dbos_error_code == listed["code"]
    for attribute in listed["attributes"]:
        assert hasattr(made, attribute), attribute


def test_the_error_module_is_an_attribute_and_importable() -> None:
    # 01 R135; ours allows the dotted import as well.
    assert dbos.error is importlib.import_module("dbos.error")


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(dbos.__file__).parent / "py.typed").exists()


def test_importing_dbos_imports_no_database_driver_and_no_optional_package() -> None:
    # 01 R86, and a program that only decorates should start fast.
    heavy = [
        "psycopg",
        "psycopg_pool",
        "sqlalchemy",
        "pydantic",
        "opentelemetry",
        "click",
        "rich",
        "yaml",
        "croniter",
        "confluent_kafka",
        "dbos.api.client",  # an application has none
    ]
    code = f"import dbos, sys; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip() == "[]"


def test_a_name_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'dbos' has no attribute 'DBOSClients'"):
        dbos.DBOSClients  # type: ignore[attr-defined]  # noqa: B018
