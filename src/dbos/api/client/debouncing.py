"""Debouncing by a client: one run for many calls, of a workflow given by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ...engine.context import NO_OPTIONS
from ...engine.debouncing import debounce_plan, named_debounce
from ...engine.plans import Plan
from ...error import DBOSException
from ..debouncing import checked_key, milliseconds, queue_name_of, timeout_milliseconds
from ..enqueueing import EnqueueOptions, merge, named_target
from ..queue import Queue
from .client import DBOSClient
from .enqueueing import check_client_options, given_options
from .handles import ClientAsyncHandle, ClientHandle
from .session import Session

if TYPE_CHECKING:
    from ...engine.core import Core

R = TypeVar("R")

# What the debouncer decides itself; for policies the value that contradicts it.
DECIDED = {
    "deduplication_id": None,
    "delay_seconds": None,
    "priority": None,
    "queue_partition_key": None,
    "duplication_policy": "return-existing",
    "workflow_id_reuse_policy": "reject",
}


class DebouncerClient(Generic[R]):
    """Runs a workflow once for many calls with the same key, when no call has come for a while.

    As `Debouncer`, for processes that only have a client. Only the database knows what is debounced, so both share the
    keys of a workflow. Making one changes nothing.
    """

    def __init__(
        self,
        client: DBOSClient,
        workflow_options: EnqueueOptions,
        *,
        debounce_timeout_sec: float | None = None,
        queue: Queue | str | None = None,
        application_name: str | None = None,
    ) -> None:
        """A debouncer for a workflow.

        Args:
            client: Through which the calls go.
            workflow_options: What is enqueued and how, as for `DBOSClient.enqueue`; but key, start and place on the
                queue are the debouncer's.
            debounce_timeout_sec: The run starts at the latest so many seconds after the first call, however many
                others follow. None or 0 is no limit.
            queue: The queue to run on, or its name; default that of the options. Whether it is registered is not
                checked.
            application_name: The application that shall run it; default that of the options, else the client's.

        Raises:
            KeyError: the options lack `workflow_name` or `queue_name`.
            DBOSException: an argument or an option has no meaning, or an option contradicts debouncing:
                `deduplication_id`, `delay_seconds`, `priority`, `queue_partition_key`, the policies "return-existing"
                for duplicates and "reject" for ids.
        """
        given = given_options(workflow_options)
        misplaced = [key for key, value in DECIDED.items() if key in given and value in (None, given[key])]
        if misplaced:
            raise DBOSException(
                f"A debouncer cannot be combined with the options {', '.join(misplaced)}: it decides on key, start and "
                f"place itself. Leave them out"
            )
        self._merged = merge(given, NO_OPTIONS, check_client_options)
        self._given = given
        if application_name is not None:
            if not isinstance(application_name, str) or not application_name:
                raise DBOSException(f"An application name is a non-empty text, not {application_name!r}")
            given["application_name"] = application_name
        self._queue_name: str = queue_name_of(queue) or given["queue_name"]
        self._timeout_ms = timeout_milliseconds(debounce_timeout_sec)
        self._session: Session = client._session

    def debounce(self, debounce_key: str, debounce_period_sec: float, *args: Any, **kwargs: Any) -> ClientHandle[R]:
        """Let the workflow run with these arguments after the period, unless another call with the key comes before.

        A call while the workflow of the key waits replaces its arguments and moves its start to the period from now,
        at the latest to the end of the debounce timeout that it began with. The run uses the arguments of the last
        call. A call after that begins anew, also while the run goes on.

        Args:
            debounce_key: Calls with the same key, workflow and queue are one.
            debounce_period_sec: How long from now until the run, in seconds; 0 or less is at once.
            args, kwargs: The arguments of the workflow.

        Returns:
            A handle on the workflow that waits; every call it stands for gets the same one.

        Raises:
            DBOSQueueDeduplicatedError: the key is held by a workflow that was not debounced, or of another name or
                application. Its `workflow_id` is the holder.
        """
        session = self._session
        workflow_id = session.call(lambda core: self._plan(core, debounce_key, debounce_period_sec, args, kwargs))
        return ClientHandle(session, workflow_id)

    async def debounce_async(
        self, debounce_key: str, debounce_period_sec: float, *args: Any, **kwargs: Any
    ) -> ClientAsyncHandle[R]:
        """As `debounce`, from async code."""
        session = self._session
        workflow_id = await session.call_async(
            lambda core: self._plan(core, debounce_key, debounce_period_sec, args, kwargs)
        )
        return ClientAsyncHandle(session, workflow_id)

    def _plan(
        self, core: Core, key: object, period_seconds: object, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Plan[str]:
        name = self._given["workflow_name"]
        call = named_debounce(
            core,
            named_target(name, self._given, args, kwargs),
            self._queue_name,
            f"{name}-{checked_key(key)}",
            self._merged.options,
            self._merged.roles,
            period_ms=milliseconds("debounce_period_sec", period_seconds),
            timeout_ms=self._timeout_ms,
        )
        return debounce_plan(core, call, self._merged.workflow_id)
