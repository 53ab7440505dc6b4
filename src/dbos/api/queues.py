"""The queues of an application: registering, listing, deleting them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, cast

from ..engine.running_loop import refuse_running_loop
from ..error import DBOSException
from ..logs import logger
from ..serialization import check_text
from ..storage.once import Once
from ..types import QueueConfig
from .queue import (
    FIRST_CHECKS,
    OTHER_CHECKS,
    Queue,
    QueueRateLimit,
    ask,
    check,
    check_numbers,
    in_thread,
    make_queue,
    rate_limit,
    warn_of_other_owner,
)
from .runtime import APPLICATION, Host, engine_here, signature_without_core, state

if TYPE_CHECKING:
    from ..engine.engine import Engine
    from ..storage.store import Store

P = ParamSpec("P")
T = TypeVar("T")

RESERVED_PREFIX = "_dbos_"

QueueConflictResolution = Literal["update_if_latest_version", "always_update", "never_update"]


# --- what a client does too


def register(host: Host, queue: QueueConfig, *, overwrite: bool) -> QueueConfig:
    """Insert or replace a queue; DBOSException when it belongs to another application."""
    core, once = host.core, Once()
    found = ask(host, lambda store: store.register_queue(queue, core.clock.now_ms(), overwrite=overwrite, once=once))
    if queue.application_name is not None and found.application_name not in (None, queue.application_name):
        raise DBOSException(
            f"Queue {queue.name!r} belongs to application {found.application_name!r}, so application "
            f"{queue.application_name!r} cannot register it. Choose another name, or delete that queue first."
        )
    core.note_reconfigured()
    return found


def configure(
    name: str,
    application_name: str | None,
    *,
    partition_limiter: QueueRateLimit | None,
    limiter: QueueRateLimit | None,
    polling_interval_sec: float,
    concurrency: int | None,
    global_concurrency: int | None,
    **limits: int | None,
) -> QueueConfig:
    """The arguments of `register_queue` as a configuration; ValueError when they are wrong or contradict each other."""
    if not isinstance(name, str):
        raise ValueError(f"A queue name is a text, not {name!r}")
    check_text(name, "queue name")
    if name.startswith(RESERVED_PREFIX):
        raise ValueError(f"Queue names that start with {RESERVED_PREFIX!r} are reserved; {name!r} is one")
    if concurrency is not None and global_concurrency is not None:
        raise ValueError(
            f"Queue {name!r}: concurrency ({concurrency}) is the former name of global_concurrency "
            f"({global_concurrency}); give one of the two"
        )
    queue = QueueConfig(
        name,
        application_name,
        concurrency if global_concurrency is None else global_concurrency,
        polling_interval_seconds=polling_interval_sec,
        **cast(Any, limits),
    )
    check_numbers(queue)
    check(queue, FIRST_CHECKS)
    partition_rate_limit = rate_limit("partition_limiter", partition_limiter)
    check(queue, OTHER_CHECKS)
    return dataclasses.replace(
        queue, rate_limit=rate_limit("limiter", limiter), partition_rate_limit=partition_rate_limit
    )


def retrieve(host: Host, name: str) -> Queue | None:
    """The queue of that name, whoever owns it; None when it is not registered."""
    check_text(name, "queue name")
    found = ask(host, lambda store: store.find_queue(name))
    return None if found is None else make_queue(host, found)


def list_registered(host: Host, *, application_name: str | list[str] | None = None) -> list[Queue]:
    """The registered queues, by name.

    Args:
        application_name: The queues of this application, or of these, and those nobody owns. Default the own
            application, or all for a client that has none; an empty text or list is all applications.
    """
    if application_name is None:
        own = host.core.application_name
        names = None if own is None else [own]
    elif isinstance(application_name, str):
        names = [application_name] if application_name else None
    else:
        names = list(application_name) or None
    return [make_queue(host, found) for found in ask(host, lambda store: store.list_queues(names))]


def delete(host: Host, name: str) -> None:
    """Forget a queue. Workflows that run go on; those that wait stay, and start when it is registered again.

    A queue of another application is deleted too, with a warning that names the owner.
    """
    check_text(name, "queue name")
    known, once = ask(host, lambda store: store.find_queue(name)), Once()
    ask(host, lambda store: store.delete_queue(name, once=once))
    warn_of_other_owner(host, name, None if known is None else known.application_name, "deleted")
    if not name.startswith(RESERVED_PREFIX) and ask(host, lambda store: store.has_waiting(name)):
        logger.warning(
            "Queue %r was deleted, and workflows wait on it: they stay until a queue of that name is registered again. "
            "resume_workflow(id, queue_name=...) moves one to another queue",
            name,
        )
    host.core.note_reconfigured()


# --- of the application


def _register_queue(
    host: Host,
    name: str,
    *,
    worker_concurrency: int | None = None,
    global_concurrency: int | None = None,
    partition_concurrency: int | None = None,
    partition_worker_concurrency: int | None = None,
    partition_limiter: QueueRateLimit | None = None,
    limiter: QueueRateLimit | None = None,
    polling_interval_sec: float = 1.0,
    on_conflict: QueueConflictResolution = "update_if_latest_version",
    concurrency: int | None = None,
) -> Queue:
    """Make a queue known to all processes, with its limits; or replace the limits of the one that is there.

    Args:
        name: Its name; not starting with `_dbos_`.
        worker_concurrency: How many of its workflows run at once in one process. Default no limit.
        global_concurrency: How many run at once in all processes together. Default no limit. 0 pauses the queue.
        partition_concurrency: How many of one partition run at once, in all processes. Default no limit.
        partition_worker_concurrency: How many of one partition run at once in one process. Default no limit.
        partition_limiter: How many of one partition start in a period, `{"limit": 10, "period": 60}`; in seconds.
        limiter: How many of the queue start in a period.
        polling_interval_sec: How often to look when nothing says that something waits. Default 1 second.
        on_conflict: What to do with a queue of that name: "update_if_latest_version" (default) replaces its limits
            if this process runs the latest version of the application, "always_update" in any case, and
            "never_update" leaves it as it is.
        concurrency: The former name of `global_concurrency`.

    A queue with a limit per partition is partitioned: only workflows with a partition key are started.

    Raises:
        ValueError: a limit is wrong or contradicts another one; nothing is written.
        DBOSException: the queue belongs to another application.

    Durability: not recorded; in workflow code it is done again by a replay.
    """
    engine = engine_here()
    queue = configure(
        name,
        engine.settings.name,
        worker_concurrency=worker_concurrency,
        global_concurrency=global_concurrency,
        partition_concurrency=partition_concurrency,
        partition_worker_concurrency=partition_worker_concurrency,
        partition_limiter=partition_limiter,
        limiter=limiter,
        polling_interval_sec=polling_interval_sec,
        concurrency=concurrency,
    )
    overwrite = on_conflict == "always_update"
    if on_conflict not in ("always_update", "never_update"):
        overwrite = ask(host, lambda store: _runs_latest(engine, store))
    is_new = ask(host, lambda store: store.find_queue(queue.name)) is None
    found = register(host, queue, overwrite=overwrite)
    if is_new:
        listens = engine.dispatcher.listens_to
        logger.info(
            "Registered %s; this process %s to it",
            found,
            "listens" if listens is None or queue.name in listens else "does not listen",
        )
    return make_queue(host, found)


def _runs_latest(engine: Engine, store: Store) -> bool:
    versions = store.list_versions(engine.settings.name, 1)
    return not versions or versions[0]["version_name"] == engine.application_version


def _blocking(name: str, operation: Callable[Concatenate[Host, P], T]) -> staticmethod[P, T]:
    """The blocking form of an operation on queues; refuses to block an event loop."""

    @functools.wraps(operation)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        refuse_running_loop(name)
        return operation(APPLICATION, *args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__signature__ = signature_without_core(operation)  # type: ignore[attr-defined]
    return staticmethod(call)


def _twin(name: str, operation: Callable[Concatenate[Host, P], T]) -> staticmethod[P, Coroutine[Any, Any, T]]:
    """The async form of the same operation, in a thread."""

    @functools.wraps(operation)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return await in_thread(APPLICATION, lambda: operation(APPLICATION, *args, **kwargs))

    call.__name__ = call.__qualname__ = f"{name}_async"
    call.__signature__ = signature_without_core(operation)  # type: ignore[attr-defined]
    return staticmethod(call)


class QueueCalls:
    """Registered queues of the application."""

    register_queue = _blocking("register_queue", _register_queue)
    register_queue_async = _twin("register_queue", _register_queue)
    retrieve_queue = _blocking("retrieve_queue", retrieve)
    retrieve_queue_async = _twin("retrieve_queue", retrieve)
    list_queues = _blocking("list_queues", list_registered)
    list_queues_async = _twin("list_queues", list_registered)
    delete_queue = _blocking("delete_queue", delete)
    delete_queue_async = _twin("delete_queue", delete)

    @classmethod
    def listen_queues(cls, queues: Sequence[str]) -> None:
        """Take work from these queues only; call it once, after construction and before launch.

        Args:
            queues: Names; they need not be registered yet. An empty sequence is no queue at all. Recovered and
                resumed workflows without a queue of their own are run in any case.

        Raises:
            DBOSException: not constructed yet, launched already, or called twice.
        """
        instance = state.instance
        if instance is None:
            raise DBOSException("No DBOS was created yet. Construct it with DBOS(config=...) first.")
        if instance.engine is not None:
            raise DBOSException("listen_queues must be called before DBOS.launch()")
        if instance.listens_to is not None:
            raise DBOSException("listen_queues was called already; give all names in one call")
        if isinstance(queues, str) or not all(isinstance(name, str) for name in queues):
            raise DBOSException(f"listen_queues takes a sequence of queue names, not {queues!r}")
        instance.listens_to = frozenset(queues)
