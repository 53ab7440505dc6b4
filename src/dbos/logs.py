"""The logger `dbos`: one handler for the console, and what every record carries.

The library and the application (`DBOS.logger`) log to the same standard logger. If the application gave it
handlers of its own, nothing is added and propagation is left alone.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from .config import Settings

LOGGER_NAME = "dbos"
CONSOLE_HANDLER_NAME = "__dbos_console_log_handler__"
CONSOLE_FORMAT = "%(asctime)s [%(levelname)8s] (%(name)s:%(filename)s:%(lineno)s) %(message)s"
CONSOLE_TIME_FORMAT = "%H:%M:%S"

logger = logging.getLogger(LOGGER_NAME)


class _ConsoleHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to what `sys.stderr` is at the time: the handler outlives redirections and captured output."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self.set_name(CONSOLE_HANDLER_NAME)
        self.setFormatter(logging.Formatter(CONSOLE_FORMAT, CONSOLE_TIME_FORMAT))

    @property
    def stream(self) -> Any:
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        # A process without a console (a service, pythonw) has no stderr.
        if sys.stderr is not None:
            super().emit(record)


class _RecordAttributes(logging.Filter):
    """Adds identity and workflow id to each record. Lets every record pass."""

    def __init__(
        self,
        get_identity: Callable[[], tuple[str, str]],
        get_workflow_id: Callable[[], str | None],
        get_trace_id: Callable[[], str | None] | None,
        fixed: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self._get_identity = get_identity
        self._get_workflow_id = get_workflow_id
        self._get_trace_id = get_trace_id
        self._fixed = fixed

    def filter(self, record: logging.LogRecord) -> bool:
        attributes = record.__dict__
        for key, value in self._fixed.items():
            # Never over what the record itself is made of, such as its message.
            attributes.setdefault(key, value)
        record.applicationVersion, record.executorID = self._get_identity()
        workflow_id = self._get_workflow_id()
        if workflow_id is not None:
            record.operationUUID = workflow_id
        if self._get_trace_id is not None:
            trace_id = self._get_trace_id()
            if trace_id is not None:
                record.traceId = trace_id
        return True


_fixed_attributes: dict[str, Any] = {"applicationID": ""}


def configure_logging(settings: Settings) -> None:
    """Set levels, add the console handler if the logger has no handler yet, and log what the settings warn
    about.

    The console handler stays for the life of the process; calling this again only changes levels.
    """
    if not logger.handlers:
        logger.propagate = False
        logger.addHandler(_ConsoleHandler())
    logger.setLevel(settings.log_level)
    for handler in logger.handlers:
        if handler.get_name() == CONSOLE_HANDLER_NAME:
            handler.setLevel(settings.console_log_level)
    _fixed_attributes.clear()
    _fixed_attributes.update({"applicationID": settings.app_id, **settings.otlp_attributes})
    for warning in settings.warnings:
        logger.warning(warning)


def install_record_attributes(
    get_identity: Callable[[], tuple[str, str]],
    get_workflow_id: Callable[[], str | None],
    get_trace_id: Callable[[], str | None] | None = None,
) -> None:
    """Put identity on every record logged directly to `dbos`, in place of an earlier such filter.

    Args:
        get_identity: The application version and the executor id, asked for each record.
        get_workflow_id: The workflow that the calling thread or task runs; None outside of one.
        get_trace_id: The active trace as 32 hexadecimal digits; None without one.
    """
    remove_record_attributes()
    logger.addFilter(_RecordAttributes(get_identity, get_workflow_id, get_trace_id, dict(_fixed_attributes)))


def remove_record_attributes() -> None:
    """Undo `install_record_attributes`. Doing it twice is fine."""
    for present in list(logger.filters):
        if isinstance(present, _RecordAttributes):
            logger.removeFilter(present)
