"""What the library logs over the life of an application (01 R81-R85)."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from tests.helpers import wait_until


@pytest.fixture
def info(config: dict[str, Any]) -> dict[str, Any]:
    return {**config, "log_level": "INFO"}


def test_launching_logs_the_lines_that_users_rely_on(
    info: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 R84
    DBOS(config=info)
    DBOS.launch()
    DBOS.destroy()
    lines = [record.getMessage() for record in caplog.records]
    wanted = [
        "Initializing DBOS (v",
        "Executor ID: test",
        "Application version: v1",
        "DBOS launched!",
        "DBOS successfully shut down",
    ]
    positions = [next(i for i, line in enumerate(lines) if line.startswith(text)) for text in wanted]
    assert positions == sorted(positions)


def test_the_password_of_the_database_is_never_logged(caplog: pytest.LogCaptureFixture, dbos_log: None) -> None:
    # 01 R43 row 3
    DBOS(
        config={
            "name": "test-app",
            "system_database_url": "postgresql://user:hunter2@127.0.0.1:1/nothing",
            "log_level": "DEBUG",
        }
    )
    with pytest.raises(Exception):  # noqa: B017
        DBOS.launch()
    assert "failed to launch" in caplog.text
    assert "hunter2" not in caplog.text


def test_records_carry_identity_and_workflow(app: type[DBOS], caplog: pytest.LogCaptureFixture, dbos_log: None) -> None:
    # 01 R83
    @DBOS.step()
    def step() -> None:
        DBOS.logger.warning("in the step")

    @DBOS.workflow()
    def work() -> None:
        DBOS.logger.warning("in the workflow")
        step()

    with SetWorkflowID("logged"):
        work()
    DBOS.logger.warning("outside")
    found: dict[str, Any] = {record.getMessage(): record for record in caplog.records}
    for text in ("in the workflow", "in the step"):
        assert found[text].operationUUID == "logged"
        assert found[text].applicationVersion == "v1"
        assert found[text].executorID == "test"
        assert found[text].applicationID == ""
    assert not hasattr(found["outside"], "operationUUID")


def test_a_failing_background_workflow_is_logged_with_its_traceback(
    app: type[DBOS], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 R85, 02 R72: whether or not somebody waits
    @DBOS.workflow()
    def fails() -> None:
        raise ValueError("a reason of its own")

    with SetWorkflowID("direct"), pytest.raises(ValueError, match="a reason"):
        fails()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    with SetWorkflowID("in-the-background"):
        DBOS.start_workflow(fails)
    (record,) = wait_until(lambda: [r for r in list(caplog.records) if r.levelno >= logging.ERROR])
    assert "in-the-background" in record.getMessage()
    assert record.exc_info is not None
    assert "a reason of its own" in str(record.exc_info[1])


def test_a_replay_logs_again(app: type[DBOS], config: dict[str, Any]) -> None:
    # 01 R133
    from tests.helpers import replay

    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    collector = Collector()
    DBOS.logger.addHandler(collector)
    try:

        @DBOS.workflow()
        def work() -> int:
            DBOS.logger.warning("doing it")
            return 1

        with SetWorkflowID("again"):
            work()
        assert replay(config, "again") == 1
    finally:
        DBOS.logger.removeHandler(collector)
    assert lines.count("doing it") == 2


def test_recovery_logs_one_line_with_the_count(
    info: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    # 01 R52
    from tests.helpers import make_pending

    @DBOS.workflow()
    def work() -> int:
        return 1

    DBOS(config=info)
    DBOS.launch()
    for number in range(3):
        with SetWorkflowID(f"w{number}"):
            work()
        make_pending(info["system_database_url"], f"w{number}")
    DBOS.destroy()
    DBOS(config=info)
    DBOS.launch()
    for number in range(3):
        assert DBOS.retrieve_workflow(f"w{number}").get_result() == 1
    DBOS.destroy()
    lines = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Recovering")]
    assert lines == ["Recovering 3 workflows from application version v1"]


def test_the_level_of_the_configuration_counts(
    config: dict[str, Any], caplog: pytest.LogCaptureFixture, dbos_log: None, tmp_path: Path
) -> None:
    # 01 R82: each constructor sets it
    for level, expected in (("ERROR", False), ("INFO", True)):
        caplog.clear()
        DBOS(config={**config, "log_level": level})
        DBOS.destroy()
        assert ("Initializing DBOS" in caplog.text) == expected
