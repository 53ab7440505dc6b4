"""Arguments that come from the database (02 section 19, 04 R628, R629)."""

from __future__ import annotations

from datetime import date, datetime, timezone
from typing import Any

import pytest

from dbos import (
    DBOS,
    DBOSConfiguredInstance,
    SetWorkflowID,
    WorkflowSerializationFormat,
    make_pydantic_args_validator,
    pydantic_args_validator,
)
from tests.helpers import make_pending, relaunch, replay, status_row

Config = dict[str, Any]


def test_the_validator_runs_only_when_a_stored_row_is_dispatched(app: type[DBOS], config: Config) -> None:
    """02 R192: after deserialization; what it returns is used."""
    calls: list[Any] = []

    def validate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        calls.append((args, kwargs))
        return (args[0] + 100,), {**kwargs, "more": 5}

    @DBOS.workflow(validate_args=validate)
    def wf(value: int, *, more: int = 0) -> int:
        return value + more

    with SetWorkflowID("w"):
        assert wf(1, more=2) == 3
    assert DBOS.start_workflow(wf, 1).get_result() == 1
    assert calls == []
    assert replay(config, "w") == 106
    assert calls == [((1,), {"more": 2})]


def test_the_validator_of_a_method_gets_no_receiver(app: type[DBOS], config: Config) -> None:
    """02 R192."""
    calls: list[Any] = []

    def validate(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        calls.append(args)
        return args, kwargs

    @DBOS.dbos_class()
    class C(DBOSConfiguredInstance):
        @DBOS.workflow(validate_args=validate)
        def wf(self, value: int) -> str:
            return f"{self.config_name} {value}"

    instance = C("c")
    with SetWorkflowID("w"):
        instance.wf(4)
    assert replay(config, "w") == "c 4"
    assert calls == [(4,)]


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_failing_validator_ends_the_workflow_without_running_it(
    app: type[DBOS], config: Config, database_url: str, flavour: str
) -> None:
    """02 R193, 04 R630, 03 R96."""
    runs: list[int] = []

    def refuse(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise ValueError("not these arguments")

    @DBOS.workflow(validate_args=refuse)
    def sync_wf(value: int) -> None:
        runs.append(value)

    @DBOS.workflow(validate_args=refuse)
    async def async_wf(value: int) -> None:
        runs.append(value)

    with SetWorkflowID("w"):
        DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf, 1).get_result()
    with pytest.raises(ValueError, match="not these arguments"):
        replay(config, "w")
    assert status_row(database_url, "w")["status"] == "ERROR"
    assert runs == [1]


def test_the_pydantic_marker_is_only_a_marker() -> None:
    """02 R194."""
    with pytest.raises(NotImplementedError):
        pydantic_args_validator((), {})


def test_the_pydantic_marker_coerces_by_annotation(app: type[DBOS], config: Config) -> None:
    """02 R194, R195, 04 R629: for every format."""

    @DBOS.workflow(validate_args=pydantic_args_validator, serialization_type=WorkflowSerializationFormat.PORTABLE)
    def wf(when: datetime, numbers: list[int], loose, *, day: date | None = None) -> list[str]:  # type: ignore[no-untyped-def]
        return [type(when).__name__, str(numbers), type(loose).__name__, type(day).__name__]

    with SetWorkflowID("w"):
        wf(datetime(2025, 1, 2, tzinfo=timezone.utc), ["1", 2], ("a",), day=date(2025, 1, 2))  # type: ignore[list-item]
    assert replay(config, "w") == ["datetime", "[1, 2]", "list", "date"]


def test_the_pydantic_validator_collects_all_findings_in_one_value_error() -> None:
    """02 R196, 04 R629: one line per argument with its name and position, or the name of the missing one."""

    def function(a: int, b: str, *, c: float, d: int = 3) -> None: ...

    validate = make_pydantic_args_validator(function)
    assert validate((1, "x"), {"c": 1}) == ((1, "x"), {"c": 1.0})
    with pytest.raises(ValueError) as found:
        validate(("not a number",), {"d": "no number either"})
    text = str(found.value)
    assert text.startswith("Argument validation failed for workflow:")
    for part in ("'a'", "position 0", "'b'", "'c'", "'d'", "missing"):
        assert part in text


def test_the_pydantic_validator_uses_the_annotations_of_star_arguments() -> None:
    """02 R195: for surplus values; unannotated ones pass, defaults are not filled in."""

    def function(a: int, *rest: int, flag=None, **more: float) -> None: ...  # type: ignore[no-untyped-def]

    validate = make_pydantic_args_validator(function)
    assert validate(("1", "2", "3"), {"x": "4.5", "flag": object}) == ((1, 2, 3), {"x": 4.5, "flag": object})
    assert validate((1,), {}) == ((1,), {})
    with pytest.raises(ValueError, match="position 2"):
        validate((1, 2, "x"), {})

    def narrow(a: int) -> None: ...

    # Too many are left to the call.
    assert make_pydantic_args_validator(narrow)((1, 2), {}) == ((1, 2), {})


def test_the_pydantic_validator_skips_the_receiver_of_registered_methods(app: type[DBOS], config: Config) -> None:
    """02 R195: whatever the receiver is called."""

    @DBOS.dbos_class()
    class C(DBOSConfiguredInstance):
        @DBOS.workflow(validate_args=pydantic_args_validator)
        def wf(this, value: int) -> str:
            return f"{this.config_name} {value + 1}"

        @classmethod
        @DBOS.workflow(validate_args=pydantic_args_validator)
        def class_wf(klass, value: int) -> str:
            return f"{klass.__name__} {value + 1}"

    instance = C("c")
    with SetWorkflowID("w"):
        instance.wf(4)
    with SetWorkflowID("v"):
        C.class_wf(5)
    assert replay(config, "w") == "c 5"
    assert replay(config, "v") == "C 6"


def test_portable_dates_are_converted_where_the_annotation_is_exactly_that(app: type[DBOS], config: Config) -> None:
    """02 R197, 04 R628: positional and named; unparseable texts and others stay texts."""

    @DBOS.workflow(serialization_type=WorkflowSerializationFormat.PORTABLE)
    def wf(a: datetime, b: date, c: Any, d: datetime | None, *, e: date, f: datetime) -> list[str]:
        return [str(value) if not isinstance(value, str) else f"text {value}" for value in (a, b, c, d, e, f)]

    moment = datetime(2025, 6, 15, 10, 30, 0, 123456, tzinfo=timezone.utc)
    with SetWorkflowID("w"):
        wf(moment, date(2025, 6, 15), moment, moment, e="2025-06-15T10:30:00Z", f="tomorrow")  # type: ignore[arg-type]
    stored = "2025-06-15T10:30:00.123Z"
    assert replay(config, "w") == [
        "2025-06-15 10:30:00.123000+00:00",
        "2025-06-15",
        f"text {stored}",
        f"text {stored}",
        "2025-06-15",
        "text tomorrow",
    ]


def test_wrong_arguments_are_an_ordinary_error_of_the_workflow(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """04 R630: a TypeError of the body."""

    @DBOS.workflow()
    def wf(value: int) -> None: ...

    with SetWorkflowID("w"), pytest.raises(TypeError):
        wf()  # type: ignore[call-arg]
    assert status_row(database_url, "w")["status"] == "ERROR"
    with pytest.raises(TypeError):
        replay(config, "w")
    make_pending(database_url, "w")
    relaunch(config)
    with pytest.raises(TypeError):
        DBOS.retrieve_workflow("w").get_result()
