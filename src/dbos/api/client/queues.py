"""The queues of applications, seen by a client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from ...error import DBOSException
from ..queue import Queue, QueueRateLimit, make_queue
from ..queues import configure, delete, list_registered, register, retrieve
from .session import HasSession, Session, describe, warn_on_loop

P = ParamSpec("P")
T = TypeVar("T")

ClientConflictResolution = Literal["always_update", "never_update"]


def _register_queue(
    session: Session,
    name: str,
    *,
    global_concurrency: int | None = None,
    partition_concurrency: int | None = None,
    partition_worker_concurrency: int | None = None,
    partition_limiter: QueueRateLimit | None = None,
    limiter: QueueRateLimit | None = None,
    worker_concurrency: int | None = None,
    polling_interval_sec: float = 1.0,
    on_conflict: ClientConflictResolution = "always_update",
    application_name: str | None = None,
    concurrency: int | None = None,
) -> Queue:
    """Make a queue known to all processes, with its limits; or replace the limits of the one that is there.

    Args:
        name: Its name; not starting with `_dbos_`.
        global_concurrency: How many of its workflows run at once in all processes together. Default no limit. 0
            pauses the queue.
        partition_concurrency: How many of one partition run at once, in all processes. Default no limit.
        partition_worker_concurrency: How many of one partition run at once in one process. Default no limit.
        partition_limiter: How many of one partition start in a period, `{"limit": 10, "period": 60}`; in seconds.
        limiter: How many of the queue start in a period.
        worker_concurrency: How many of its workflows run at once in one process. Default no limit.
        polling_interval_sec: How often to look when nothing says that something waits. Default 1 second.
        on_conflict: "always_update" (default) replaces the limits of a queue of that name, "never_update" leaves
            it as it is.
        application_name: Whose queue it is; default the client's application, else nobody's.
        concurrency: The former name of `global_concurrency`.

    Returns:
        The queue; it reads and writes through this client.

    Raises:
        ValueError: a limit is wrong or contradicts another one; nothing is written.
        DBOSException: the queue belongs to another application, or `on_conflict` is none of the two.
    """
    queue = configure(
        name,
        application_name or session.core.application_name,
        global_concurrency=global_concurrency,
        partition_concurrency=partition_concurrency,
        partition_worker_concurrency=partition_worker_concurrency,
        partition_limiter=partition_limiter,
        limiter=limiter,
        worker_concurrency=worker_concurrency,
        polling_interval_sec=polling_interval_sec,
        concurrency=concurrency,
    )
    if on_conflict not in ("always_update", "never_update"):
        raise DBOSException(
            f"on_conflict must be 'always_update' or 'never_update' for a client, which has no version, not "
            f"{on_conflict!r}"
        )
    return make_queue(session, register(session, queue, overwrite=on_conflict == "always_update"))


def _blocking(name: str, operation: Callable[Concatenate[Session, P], T]) -> Callable[Concatenate[Any, P], T]:
    """The blocking form of an operation on queues, which says so when it blocks a loop."""

    def call(self: HasSession, /, *args: P.args, **kwargs: P.kwargs) -> T:
        warn_on_loop(name)
        return operation(self._session, *args, **kwargs)

    describe(call, name, operation)
    return call


def _twin(
    name: str, operation: Callable[Concatenate[Session, P], T]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The async form of the same operation, in a thread."""

    async def call(self: HasSession, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._session.in_thread(lambda: operation(self._session, *args, **kwargs))

    describe(call, f"{name}_async", operation)
    return call


class QueueMethods:
    """`DBOSClient.register_queue` and the like."""

    _session: Session

    register_queue = _blocking("register_queue", _register_queue)
    register_queue_async = _twin("register_queue", _register_queue)
    retrieve_queue = _blocking("retrieve_queue", retrieve)
    retrieve_queue_async = _twin("retrieve_queue", retrieve)
    list_queues = _blocking("list_queues", list_registered)
    list_queues_async = _twin("list_queues", list_registered)
    delete_queue = _blocking("delete_queue", delete)
    delete_queue_async = _twin("delete_queue", delete)
