"""Durable workflows in Python, kept in SQLite or Postgres.

Where things are. Imports run downwards only.

    api/        what an application calls
                  app          DBOS: construct, launch, destroy
                  decorators   workflow, step, classes, roles
                  starting     start workflows in the background
                  schedules    run workflows at the times of a cron expression
                  debouncing   one run for many calls
                  enqueueing   put workflows on queues;  bulk: many at once;  queues: their limits
                  messages     send to workflows, receive, list;  events: publish values
                  kafka        a workflow for each message
                  steps        run_step, reserved step ids
                  calls        sleep, patches
                  streams      write and read them
                  results      handles, results, status;  listing: many at once
                  management   cancel, resume, fork, rewind, delete;  requests: their arguments, checked
                  versions     application versions
                  options      the Set... blocks, step options
                  client/      DBOSClient: the same for processes that run no workflows
                               session: its connection;  one file for each topic
        |
    engine/     what makes calls durable; no SQL
                  debouncing   delay one that waits, with new arguments
                  starting     write a new workflow;  enqueueing: one that waits on a queue;  bulk: many of them
                  management   cancel, resume, fork, rewind, delete
                  workflows    execute, record the outcome, wait for it
                  steps        find, run, retry, record
                  operations   other calls that are recorded like steps
                  plans        what an operation yields;  drivers: who carries it out
                  journal      group commit
                  signals      waking up
                  effects      what code does to the outside, with its step row;  messages, events
                  streams      write them;  stream_reading: read them;  feeds: what their readers share
                  kafka        take messages, enqueue their workflows
                  dispatcher   claim from queues;  queue_warnings: what waits there for ever
                  scheduler    fire schedules;  schedules: create and change them;  cron: their ticks
                  services     deadlines, delays, other processes;  takeover: of the dead
                  engine       wires them together, and owns the running executions
                  core         the part of it that a client has;  renaming: of applications
        |
    storage/    what is written down
                  store        the contract
                  management   change workflows from outside, each time one transaction;  once: though tried again
                  database     what both backends share;  sqlite, postgres and sql/<backend>/*.sql
                  batch        the records of a transaction as statements and as news
                  listening    who else is there, on Postgres;  lock_file: on SQLite
                  migrate      the schema
        |
    records  types  error  config      import nothing above them;  config_checks: each key by itself
    serialization    values to text and back;  portable: JSON for every language;  unpickling: what may be read

    embedded_postgres   a Postgres server for tests and demos;  temporary: one that goes with its process

Start reading at api/decorators.step, then engine/steps, engine/journal, storage/database.
The names below are public. Everything else may change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import error
from .api.app import DBOS
from .api.bulk import EnqueueItem
from .api.debouncing import Debouncer
from .api.decorators import DBOSConfiguredInstance
from .api.enqueueing import EnqueueOptions
from .api.handles import WorkflowHandle, WorkflowHandleAsync
from .api.migration import run_dbos_database_migrations
from .api.options import (
    DBOSContextEnsure,
    DBOSContextSetAuth,
    SetEnqueueOptions,
    SetShardKey,
    SetWorkflowAttributes,
    SetWorkflowID,
    SetWorkflowTimeout,
    StepOptions,
)
from .api.queue import Queue
from .api.schedules import ClientScheduleInput, ScheduleInput
from .api.steps import StepReservation
from .api.validation import make_pydantic_args_validator, pydantic_args_validator
from .config import DBOSConfig
from .error import PortableWorkflowError
from .serialization import DBOSPortableJSONSerializer, Serializer, WorkflowSerializationFormat
from .types import (
    DuplicationPolicy,
    KafkaMessage,
    MessageInfo,
    SendMessage,
    StepInfo,
    VersionInfo,
    WorkflowIDReusePolicy,
    WorkflowSchedule,
    WorkflowStatus,
    WorkflowStatusString,
)

if TYPE_CHECKING:
    from .api.client.client import DBOSClient
    from .api.client.debouncing import DebouncerClient

__all__ = [
    "ClientScheduleInput",
    "DBOS",
    "DBOSClient",
    "DBOSConfig",
    "DBOSConfiguredInstance",
    "DBOSContextEnsure",
    "DBOSContextSetAuth",
    "DBOSPortableJSONSerializer",
    "Debouncer",
    "DebouncerClient",
    "DuplicationPolicy",
    "EnqueueItem",
    "EnqueueOptions",
    "KafkaMessage",
    "MessageInfo",
    "PortableWorkflowError",
    "Queue",
    "ScheduleInput",
    "SendMessage",
    "Serializer",
    "SetEnqueueOptions",
    "SetShardKey",
    "SetWorkflowAttributes",
    "SetWorkflowID",
    "SetWorkflowTimeout",
    "StepInfo",
    "StepOptions",
    "StepReservation",
    "VersionInfo",
    "WorkflowHandle",
    "WorkflowHandleAsync",
    "WorkflowIDReusePolicy",
    "WorkflowSchedule",
    "WorkflowSerializationFormat",
    "WorkflowStatus",
    "WorkflowStatusString",
    "error",
    "make_pydantic_args_validator",
    "pydantic_args_validator",
    "run_dbos_database_migrations",
]

# Applications that have no client do not import one.
_CLIENTS = {"DBOSClient": "client", "DebouncerClient": "debouncing"}

if not TYPE_CHECKING:  # to type checkers any name would exist

    def __getattr__(name: str) -> Any:
        if name not in _CLIENTS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".api.client.{_CLIENTS[name]}", __name__), name)
