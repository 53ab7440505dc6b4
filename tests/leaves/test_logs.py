"""The logger `dbos`."""

import logging
import re
import sys

import pytest

from dbos.config import resolve
from dbos.logs import (
    CONSOLE_HANDLER_NAME,
    configure_logging,
    install_record_attributes,
    logger,
    remove_record_attributes,
)


@pytest.fixture(autouse=True)
def fresh_logger():
    """The logger as at the start of a process, and afterwards as it was."""
    before = (list(logger.handlers), list(logger.filters), logger.level, logger.propagate)
    logger.handlers[:], logger.filters[:], logger.propagate = [], [], True
    logger.setLevel(logging.NOTSET)
    yield
    logger.handlers[:], logger.filters[:], _, logger.propagate = before
    logger.setLevel(before[2])


class Collector(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


def configure(environ=None, **config):
    configure_logging(resolve({"name": "my-app", **config}, environ=environ or {}))


def console():
    return [handler for handler in logger.handlers if handler.get_name() == CONSOLE_HANDLER_NAME]


def logged(**extra) -> logging.LogRecord:
    collector = Collector()
    logger.addHandler(collector)
    try:
        logger.error("text", extra=extra)
    finally:
        logger.removeHandler(collector)
    return collector.records[0]


def test_the_logger_is_the_standard_one_named_dbos():
    assert logger is logging.getLogger("dbos")


def test_a_line_on_the_console_has_time_level_place_and_message(capsys):
    configure()
    logger.info("hello")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\d\d:\d\d:\d\d \[    INFO\] \(dbos:test_logs\.py:\d+\) hello\n", err)


def test_a_bare_logger_gets_one_console_handler_and_stops_propagating():
    configure()
    configure()
    assert len(console()) == 1
    assert isinstance(console()[0], logging.StreamHandler)
    assert not logger.propagate


def test_a_logger_with_handlers_of_the_application_is_left_alone():
    own = Collector()
    logger.addHandler(own)
    configure()
    assert logger.handlers == [own]
    assert logger.propagate


def test_the_console_follows_a_redirected_stderr(monkeypatch, capsys):
    configure()
    lines = []
    stream = type("Stream", (), {"write": staticmethod(lines.append), "flush": staticmethod(lambda: None)})
    monkeypatch.setattr(sys, "stderr", stream)
    logger.warning("elsewhere")
    assert "elsewhere" in "".join(lines)


def test_a_process_without_stderr_logs_to_nowhere(monkeypatch):
    configure()
    monkeypatch.setattr(sys, "stderr", None)
    logger.warning("nobody hears this")
    monkeypatch.undo()
    assert len(console()) == 1


def test_each_configuration_sets_the_levels():
    configure(log_level="DEBUG", console_log_level="ERROR")
    assert (logger.level, console()[0].level) == (logging.DEBUG, logging.ERROR)
    configure()
    assert (logger.level, console()[0].level) == (logging.INFO, logging.INFO)


def test_the_console_cannot_show_more_than_the_logger_lets_through(capsys):
    configure(log_level="ERROR", console_log_level="DEBUG")
    logger.warning("quiet")
    assert capsys.readouterr().err == ""


def test_the_warnings_of_a_configuration_are_logged_once(capsys):
    configure(auto_upgrade=True)
    err = capsys.readouterr().err
    assert err.count("auto_upgrade") == 1
    assert "WARNING" in err


def test_a_record_carries_identity_and_the_workflow_that_runs():
    configure({"DBOS__APPID": "app"}, otlp_attributes={"team": "x"})
    install_record_attributes(lambda: ("v1", "e1"), lambda: "wf-1")
    record = logged()
    assert (record.applicationID, record.applicationVersion, record.executorID) == ("app", "v1", "e1")
    assert (record.operationUUID, record.team) == ("wf-1", "x")
    assert not hasattr(record, "traceId")


def test_outside_a_workflow_a_record_names_none():
    configure()
    install_record_attributes(lambda: ("v1", "e1"), lambda: None)
    record = logged()
    assert record.applicationID == ""
    assert not hasattr(record, "operationUUID")


def test_identity_is_asked_for_each_record():
    identity = ["v1", "e1"]
    install_record_attributes(lambda: (identity[0], identity[1]), lambda: None)
    assert logged().applicationVersion == "v1"
    identity[0] = "v2"
    assert logged().applicationVersion == "v2"


@pytest.mark.parametrize("trace", ["a" * 32, None])
def test_the_trace_is_on_the_record_while_there_is_one(trace):
    install_record_attributes(lambda: ("v", "e"), lambda: None, lambda: trace)
    assert getattr(logged(), "traceId", None) == trace


def test_a_second_installation_replaces_the_first():
    install_record_attributes(lambda: ("v1", "e1"), lambda: "wf-1")
    install_record_attributes(lambda: ("v2", "e2"), lambda: None)
    assert len(logger.filters) == 1
    record = logged()
    assert record.applicationVersion == "v2"
    assert not hasattr(record, "operationUUID")


def test_removing_the_attributes_twice_is_fine_and_keeps_other_filters():
    own = logging.Filter()
    logger.addFilter(own)
    install_record_attributes(lambda: ("v", "e"), lambda: None)
    remove_record_attributes()
    remove_record_attributes()
    assert logger.filters == [own]
    assert not hasattr(logged(), "executorID")


def test_configured_attributes_do_not_replace_parts_of_the_record():
    configure(otlp_attributes={"msg": "other", "levelname": "x"})
    install_record_attributes(lambda: ("v", "e"), lambda: None)
    assert (logged().getMessage(), logged().levelname) == ("text", "ERROR")


def test_child_loggers_carry_no_attributes():
    install_record_attributes(lambda: ("v", "e"), lambda: None)
    collector = Collector()
    logger.addHandler(collector)
    logging.getLogger("dbos.child").error("text")
    assert not hasattr(collector.records[0], "executorID")


def test_a_value_given_with_the_message_stays(caplog):
    install_record_attributes(lambda: ("v", "e"), lambda: None)
    assert logged(order=5).order == 5
