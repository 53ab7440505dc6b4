"""Enqueueing by a client: by name, since it knows no functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...engine.context import NO_OPTIONS, Options
from ...engine.enqueueing import check_options, enqueue_named_plan, enqueue_within, record_of_name
from ...engine.plans import Plan
from ...error import DBOSException
from ...logs import logger
from ..enqueueing import KNOWN_OPTIONS, EnqueueOptions, check_queue_name, merge, named_target, no_such_option
from .handles import ClientAsyncHandle, ClientHandle
from .session import Session

if TYPE_CHECKING:
    from ...engine.core import Core


def given_options(options: Any) -> dict[str, Any]:
    """Those of EnqueueOptions that are set and not None; an unknown one is refused.

    Raises:
        KeyError: the name of the workflow or of the queue is missing.
        DBOSException: there is no such option; the message says what was probably meant.
    """
    if not isinstance(options, Mapping):
        raise DBOSException(f"EnqueueOptions are a dictionary, not {options!r}")
    given: dict[str, Any] = {}
    for key, value in options.items():
        if key in KNOWN_OPTIONS:
            if value is not None:
                given[key] = value
        elif key == "max_recovery_attempts":
            logger.warning(
                "The enqueue option max_recovery_attempts has no effect: @DBOS.workflow(max_recovery_attempts=...) "
                "decides how often a workflow is recovered"
            )
        else:
            raise DBOSException(no_such_option(key))
    name = given["workflow_name"]
    if not isinstance(name, str) or not name:
        raise DBOSException(f"A workflow name is a non-empty text, not {name!r}")
    check_queue_name(given["queue_name"])
    timeout = given.get("workflow_timeout")
    if isinstance(timeout, (int, float)) and timeout < 0:
        raise DBOSException(f"workflow_timeout must not be negative, but is {timeout!r}; leave it out for no timeout")
    return given


def check_client_options(options: Options) -> None:
    """A client may combine a deduplication id with a partition key (03 R37)."""
    check_options({"deduplication_id": options.deduplication_id, "duplication_policy": options.duplication_policy})


def _enqueue_plan(core: Core, options: EnqueueOptions, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Plan[str]:
    given = given_options(options)
    merged = merge(given, NO_OPTIONS, check_client_options)
    return enqueue_named_plan(
        core,
        given["queue_name"],
        named_target(given["workflow_name"], given, args, kwargs),
        merged.options,
        workflow_id=merged.workflow_id,
        reject=merged.reject,
        roles=merged.roles,
    )


class EnqueueMethods:
    """`DBOSClient.enqueue`, `enqueue_async` and `enqueue_in_transaction`."""

    _session: Session

    def enqueue(self, options: EnqueueOptions, *args: Any, **kwargs: Any) -> ClientHandle[Any]:
        """Put a workflow on a queue and return its handle.

        Returns only after the workflow and its arguments are committed. Neither the workflow nor the queue need be
        known here: a process of the application that has both starts it. Options around the call (SetWorkflowID and so
        on) do not count.

        Args:
            options: What to enqueue and how; `workflow_name` and `queue_name` are required. Without `app_version` the
                latest version of the application runs it.
            args, kwargs: The arguments of the workflow.

        Returns:
            A handle. An id in use gives the handle of the workflow that has it.

        Raises:
            KeyError: `workflow_name` or `queue_name` is missing.
            DBOSException: an option has no meaning or does not exist; the message names it.
            DBOSQueueDeduplicatedError: another workflow of the queue holds the deduplication id.
            DBOSConflictingWorkflowError: the id belongs to a workflow of another name.
            DBOSWorkflowIDInUseError: the id is in use and the policy is "reject".
        """
        session = self._session
        return ClientHandle(session, session.call(lambda core: _enqueue_plan(core, options, args, kwargs)))

    async def enqueue_async(self, options: EnqueueOptions, *args: Any, **kwargs: Any) -> ClientAsyncHandle[Any]:
        """As `enqueue`, from async code. Many at a time share their commits."""
        session = self._session
        workflow_id = await session.call_async(lambda core: _enqueue_plan(core, options, args, kwargs))
        return ClientAsyncHandle(session, workflow_id)

    def enqueue_in_transaction(
        self, conn_or_session: Any, options: EnqueueOptions, *args: Any, **kwargs: Any
    ) -> ClientHandle[Any]:
        """Put a workflow on a queue in a transaction of yours: it exists if and when that commits.

        Nothing is begun, committed, rolled back or tried again here; the database's errors come out as SQLAlchemy
        raises them.

        Args:
            conn_or_session: A SQLAlchemy Connection or Session on the system database.
            options, args, kwargs: As for `enqueue`.

        Returns:
            A handle; its `get_status` finds no workflow until the transaction commits.

        Raises:
            DBOSException: besides what `enqueue` raises it for: the policy "return-existing" for a deduplication id,
                and a connection to another kind of database. All these leave the transaction usable.
        """
        from ...storage.caller_transaction import connection_of

        core = self._session.core
        given = given_options(options)
        merged = merge(given, NO_OPTIONS, check_client_options)
        if merged.options.duplication_policy == "return-existing":
            raise DBOSException(
                "enqueue_in_transaction cannot use duplication_policy 'return-existing': who holds the id is known "
                "for certain only after the commit. Leave it out, and catch DBOSQueueDeduplicatedError"
            )
        target = named_target(given["workflow_name"], given, args, kwargs)
        make_record = record_of_name(core, given["queue_name"], target, merged.options, merged.roles)
        connection = connection_of(conn_or_session)
        workflow_id = enqueue_within(core, connection, make_record, merged.workflow_id, merged.reject)
        return ClientHandle(self._session, workflow_id)

    async def enqueue_in_transaction_async(
        self, conn_or_session: Any, options: EnqueueOptions, *args: Any, **kwargs: Any
    ) -> ClientAsyncHandle[Any]:
        """As `enqueue_in_transaction`, on a SQLAlchemy AsyncConnection or AsyncSession."""
        from ...storage.caller_transaction import on_sync_connection

        await self._session.open_async()
        handle = await on_sync_connection(
            conn_or_session, lambda connection: self.enqueue_in_transaction(connection, options, *args, **kwargs)
        )
        return ClientAsyncHandle(self._session, handle.workflow_id)
