"""Constructing DBOS: one instance per process, nothing opened; where identity comes from."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS
from dbos.api.runtime import state
from dbos.error import DBOSException, DBOSInitializationError


@pytest.fixture
def lite(tmp_path: Path) -> dict[str, Any]:
    """A configuration of a SQLite file that does not exist."""
    return {
        "name": "test-app",
        "system_database_url": f"sqlite:///{tmp_path}/system.sqlite",
        "log_level": "WARNING",
    }


def test_a_second_constructor_returns_the_first_instance(lite: dict[str, Any]) -> None:
    # 01 R28
    first = DBOS(config=lite)
    assert DBOS(config={**lite, "executor_id": "ignored"}) is first
    assert DBOS(config=None) is first  # type: ignore[arg-type]
    assert DBOS.executor_id == "local"


def test_a_second_constructor_for_another_application_warns(
    lite: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 15.1 number 7: silently ignored elsewhere
    DBOS(config=lite)
    DBOS(config={**lite, "name": "another-app"})
    assert "another-app" in caplog.text
    assert "ignored" in caplog.text


def test_the_configuration_is_required(lite: dict[str, Any]) -> None:
    # 01 R28
    with pytest.raises(TypeError, match="config"):
        DBOS()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="config"):
        DBOS(config=None)  # type: ignore[arg-type]
    DBOS(config=lite)
    with pytest.raises(TypeError, match="config"):
        DBOS()  # type: ignore[call-arg]


@pytest.mark.parametrize("key", ["conductor_key", "conductor_url"])
def test_a_control_plane_is_refused_as_argument_and_as_key(lite: dict[str, Any], key: str) -> None:
    # 01 R28 and section 16 number 12
    with pytest.raises(DBOSInitializationError, match=f"not supported by this implementation: {key}"):
        DBOS(config=lite, **{key: "wss://somewhere"})
    with pytest.raises(DBOSInitializationError, match=f"not supported by this implementation: {key}"):
        DBOS(config={**lite, key: "wss://somewhere"})
    assert state.instance is None


@pytest.mark.parametrize("argument", ["fastapi", "flask"])
def test_arguments_of_earlier_releases_are_refused(lite: dict[str, Any], argument: str) -> None:
    # 01 R2
    with pytest.raises(TypeError, match=argument):
        DBOS(config=lite, **{argument: object()})


def test_constructing_opens_nothing_and_starts_nothing(lite: dict[str, Any], tmp_path: Path) -> None:
    # 01 R29
    threads = set(threading.enumerate())
    DBOS(config=lite)
    assert list(tmp_path.iterdir()) == []
    assert set(threading.enumerate()) == threads


def test_a_failed_constructor_leaves_no_instance(lite: dict[str, Any]) -> None:
    # 01 R30

    @DBOS.workflow()
    def work() -> int:
        return 1

    with pytest.raises(DBOSInitializationError):
        DBOS(config={**lite, "name": "No Good"})
    with pytest.raises(DBOSException, match="DBOS\\(config"):
        DBOS.launch()
    with pytest.raises(DBOSException, match="No DBOS was created"):
        work()
    DBOS(config=lite)
    DBOS.launch()
    assert work() == 1
    DBOS.destroy()


def test_functions_decorated_before_the_instance_exists_are_adopted(lite: dict[str, Any]) -> None:
    # 01 R25, 02 R6

    @DBOS.workflow()
    def early() -> str:
        return "early"

    DBOS(config=lite)

    @DBOS.workflow()
    def constructed() -> str:
        return "constructed"

    DBOS.launch()

    @DBOS.workflow()
    def late() -> str:
        return "late"

    assert [early(), constructed(), late()] == ["early", "constructed", "late"]
    assert DBOS.start_workflow(late).get_result() == "late"
    DBOS.destroy()


def test_the_default_database_is_a_file_named_after_the_application(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 01 R7, R10: resolved when launch opens it
    monkeypatch.chdir(tmp_path)
    DBOS(config={"name": "9-my-app", "log_level": "WARNING", "application_version": "v1"})
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    DBOS.launch()
    DBOS.destroy()
    assert (below / "_9_my_app.sqlite").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["below"]


def test_connection_variables_of_the_environment_are_not_read(
    lite: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # 01 R21
    monkeypatch.setenv("DBOS_SYSTEM_DATABASE_URL", "postgresql://nobody@localhost:1/nothing")
    monkeypatch.setenv("DBOS_CONDUCTOR_KEY", "key")
    monkeypatch.chdir(tmp_path)
    DBOS(config={"name": "test-app", "log_level": "WARNING", "application_version": "v1"})
    DBOS.launch()
    DBOS.destroy()
    assert (tmp_path / "test_app.sqlite").exists()


# --- identity


def test_identity_comes_from_the_configuration_then_the_environment(
    lite: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 01 R32
    monkeypatch.setenv("DBOS__APPVERSION", "from the environment")
    monkeypatch.setenv("DBOS__VMID", "machine")
    DBOS(config=lite)
    assert (DBOS.application_version, DBOS.executor_id) == ("from the environment", "machine")
    DBOS.destroy()
    DBOS(config={**lite, "application_version": "v7", "executor_id": "mine"})
    assert (DBOS.application_version, DBOS.executor_id) == ("v7", "mine")


def test_an_empty_executor_variable_counts_as_unset(lite: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # 01 2.7
    monkeypatch.setenv("DBOS__VMID", "")
    DBOS(config=lite)
    assert DBOS.executor_id == "local"


def test_the_version_is_empty_until_launch_computes_it_and_stays_after_destroy(lite: dict[str, Any]) -> None:
    # 01 R32, R33

    @DBOS.workflow()
    def work() -> None: ...

    DBOS(config=lite)
    assert DBOS.application_version == ""
    DBOS.launch()
    computed = DBOS.application_version
    assert len(computed) == 32
    assert set(computed) <= set("0123456789abcdef")
    DBOS.destroy()
    assert DBOS.application_version == computed
    DBOS(config=lite)
    assert DBOS.application_version == ""


def launched_version(config: dict[str, Any]) -> str:
    DBOS(config=config)
    DBOS.launch()
    version = DBOS.application_version
    DBOS.destroy()
    return version


def test_the_computed_version_follows_workflows_steps_and_name(lite: dict[str, Any]) -> None:
    # 01 R33

    @DBOS.workflow()
    def work() -> None: ...

    first = launched_version(lite)
    assert launched_version(lite) == first
    assert launched_version({**lite, "name": "other-app"}) != first

    @DBOS.step()
    def added() -> None: ...

    with_step = launched_version(lite)
    assert with_step != first

    @DBOS.workflow(name="another")
    def another() -> None: ...

    assert launched_version(lite) not in (first, with_step)


def test_a_workflow_without_source_gives_a_fixed_version_and_a_warning(
    lite: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 R34
    namespace: dict[str, Any] = {"DBOS": DBOS}
    exec("@DBOS.workflow()\ndef made_up():\n    return 1\n", namespace)
    assert launched_version(lite) == "DEFAULT_VERSION-test-app"
    assert "application_version" in caplog.text
    assert "made_up" in caplog.text


def test_enable_patching_gives_a_fixed_version_and_a_deprecation_warning(
    lite: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 02 R205
    DBOS(config={**lite, "enable_patching": True})
    assert DBOS.application_version == "PATCHING_ENABLED"
    assert "deprecated" in caplog.text
    DBOS.destroy()
    DBOS(config={**lite, "enable_patching": True, "application_version": "v3"})
    assert DBOS.application_version == "v3"


def test_auto_upgrade_is_accepted_with_one_warning_and_never_prevents_a_launch(
    lite: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 02 R211, R275

    @DBOS.workflow(auto_upgrade=True)
    def enrolled() -> int:
        return 1

    @DBOS.workflow(auto_upgrade=False)
    def left_out() -> int:
        return 2

    DBOS(config={**lite, "auto_upgrade": True})
    DBOS.launch()
    assert enrolled() + left_out() == 3
    DBOS.destroy()
    warnings = [record.message for record in caplog.records if "auto_upgrade" in record.getMessage()]
    assert len(warnings) == 1
