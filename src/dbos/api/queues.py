"""Queues: registering, reading and changing them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypedDict, TypeVar, cast

from ..engine.plans import Plan, Read
from ..engine.running_loop import refuse_running_loop, running_loop
from ..error import DBOSException
from ..logs import logger
from ..serialization import check_text
from ..storage.store import Store
from ..types import QueueConfig, RateLimit
from .enqueueing import EnqueueCalls
from .handles import WorkflowHandle, WorkflowHandleAsync
from .runtime import engine_here, run, state

if TYPE_CHECKING:
    from ..engine.engine import Engine

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

RESERVED_PREFIX = "_dbos_"

QueueConflictResolution = Literal["update_if_latest_version", "always_update", "never_update"]


class QueueRateLimit(TypedDict):
    """At most `limit` starts in any window of `period` seconds."""

    limit: int
    period: float


# --- validation

Check = tuple[tuple[str, ...], Callable[[QueueConfig], bool], str]


def _not_above(lower: str, upper: str) -> Check:
    def holds(queue: QueueConfig) -> bool:
        low, high = getattr(queue, lower), getattr(queue, upper)
        return low is None or high is None or low <= high

    return (lower, upper), holds, f"{lower} ({{{lower}}}) must not be above {upper} ({{{upper}}})"


def _positive(name: str) -> Check:
    def holds(queue: QueueConfig) -> bool:
        value = getattr(queue, name)
        return value is None or value >= 1

    return (name,), holds, f"{name} must be at least 1, not {{{name}}}"


# In the order in which they are reported (03 R4).
CHECKS: tuple[Check, ...] = (
    _positive("partition_concurrency"),
    _positive("partition_worker_concurrency"),
    _not_above("partition_worker_concurrency", "partition_concurrency"),
    _not_above("partition_worker_concurrency", "worker_concurrency"),
    _not_above("worker_concurrency", "global_concurrency"),
    _not_above("partition_concurrency", "global_concurrency"),
    _not_above("partition_worker_concurrency", "global_concurrency"),
    (
        ("polling_interval_seconds",),
        lambda queue: queue.polling_interval_seconds > 0,
        "polling_interval_sec must be above 0, not {polling_interval_seconds}",
    ),
)


def check(queue: QueueConfig, changed: str | None = None) -> None:
    """ValueError for limits that contradict each other; only those that concern `changed`, if given."""
    for names, holds, message in CHECKS:
        if (changed is None or changed in names) and not holds(queue):
            values = {name: getattr(queue, name) for name in names}
            raise ValueError(f"Queue {queue.name!r}: {message.format(**values)}")


def _rate_limit(name: str, limiter: QueueRateLimit | None) -> RateLimit | None:
    if limiter is None:
        return None
    missing = [key for key in ("limit", "period") if limiter.get(key) is None]
    if missing:
        raise ValueError(f"The {name} {limiter!r} lacks {' and '.join(map(repr, missing))}")
    return RateLimit(limiter["limit"], float(limiter["period"]))


def _check_numbers(queue: QueueConfig) -> None:
    for name in ("global_concurrency", "worker_concurrency", "partition_concurrency", "partition_worker_concurrency"):
        value = getattr(queue, name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise ValueError(f"Queue {queue.name!r}: {name} must be a whole number, not {value!r}")


def _ask(query: Callable[[Store], T]) -> T:
    """A query of the store, repeated until it answers. Queues are never recorded: a replay asks again."""

    def plan() -> Plan[T]:
        answer: T = yield Read(query)
        return answer

    return run(engine_here(), plan())


async def _in_thread(function: Callable[[], T]) -> T:
    return await engine_here().loops.in_thread(function)


# --- one queue


class Queue:
    """A registered queue. Its limits are read from the database whenever they are asked for.

    Attributes:
        name: Its address, the same for all applications.
        application_name: Who owns it, as last read; None is nobody.
    """

    name: str
    application_name: str | None
    database_backed_queue: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise DBOSException("Queues are made with DBOS.register_queue(name, ...), not by calling Queue")

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    def _read(self) -> QueueConfig:
        if running_loop() is not None:
            logger.warning("Queue %r was read on a running event loop, which waits for the database", self.name)
        return self._read_quietly()

    def _read_quietly(self) -> QueueConfig:
        name = self.name
        found = _ask(lambda store: store.find_queue(name))
        if found is None:
            raise DBOSException(f"Queue {name!r} does not exist any more; register it again")
        self.application_name = found.application_name
        return found

    def _change(self, field: str, value: Any, *, must_exist: bool = True) -> None:
        engine = engine_here()
        while True:
            name = self.name
            found = _ask(lambda store: store.find_queue(name))
            if found is None:
                if must_exist:
                    raise DBOSException(f"Queue {name!r} does not exist any more; register it again")
                return
            changed = dataclasses.replace(found, **{field: value})
            _check_numbers(changed)
            check(changed, field)
            if _ask(lambda store: store.update_queue(changed, engine.clock.now_ms())):
                break
        engine.dispatcher.read_configuration_now()

    # Each setting: a property, and the ways to read and change it from async code.

    @property
    def global_concurrency(self) -> int | None:
        """How many workflows of the queue run at once, in all processes together."""
        return self._read().global_concurrency

    @property
    def concurrency(self) -> int | None:
        """The former name of `global_concurrency`."""
        return self._read().global_concurrency

    @property
    def worker_concurrency(self) -> int | None:
        """How many workflows of the queue run at once in one process."""
        return self._read().worker_concurrency

    @property
    def limiter(self) -> QueueRateLimit | None:
        """How many workflows of the queue start in a period."""
        return _limiter(self._read().rate_limit)

    @property
    def partition_concurrency(self) -> int | None:
        """How many workflows of one partition run at once, in all processes together."""
        return self._read().partition_concurrency

    @property
    def partition_worker_concurrency(self) -> int | None:
        """How many workflows of one partition run at once in one process."""
        return self._read().partition_worker_concurrency

    @property
    def partition_limiter(self) -> QueueRateLimit | None:
        """How many workflows of one partition start in a period."""
        return _limiter(self._read().partition_rate_limit)

    @property
    def polling_interval_sec(self) -> float:
        """How often, in seconds, the queue is looked at when nothing says that something waits."""
        return self._read().polling_interval_seconds

    async def get_global_concurrency_async(self) -> int | None:
        return (await _in_thread(self._read_quietly)).global_concurrency

    async def get_concurrency_async(self) -> int | None:
        return (await _in_thread(self._read_quietly)).global_concurrency

    async def get_worker_concurrency_async(self) -> int | None:
        return (await _in_thread(self._read_quietly)).worker_concurrency

    async def get_limiter_async(self) -> QueueRateLimit | None:
        return _limiter((await _in_thread(self._read_quietly)).rate_limit)

    async def get_partition_concurrency_async(self) -> int | None:
        return (await _in_thread(self._read_quietly)).partition_concurrency

    async def get_partition_worker_concurrency_async(self) -> int | None:
        return (await _in_thread(self._read_quietly)).partition_worker_concurrency

    async def get_partition_limiter_async(self) -> QueueRateLimit | None:
        return _limiter((await _in_thread(self._read_quietly)).partition_rate_limit)

    async def get_polling_interval_sec_async(self) -> float:
        return (await _in_thread(self._read_quietly)).polling_interval_seconds

    def set_global_concurrency(self, value: int | None) -> None:
        """Change the limit, None removes it; ValueError when it contradicts another one. 0 pauses the queue."""
        self._change("global_concurrency", value)

    def set_concurrency(self, value: int | None) -> None:
        """The former name of `set_global_concurrency`."""
        self._change("global_concurrency", value)

    def set_worker_concurrency(self, value: int | None) -> None:
        """Change the limit, None removes it; ValueError when it contradicts another one. 0 pauses the queue."""
        self._change("worker_concurrency", value)

    def set_limiter(self, value: QueueRateLimit | None) -> None:
        """Change the rate limit, None removes it; ValueError without `limit` or `period`."""
        self._change("rate_limit", _rate_limit("limiter", value), must_exist=False)

    def set_partition_concurrency(self, value: int | None) -> None:
        """Change the limit, None removes it; ValueError when it is below 1 or contradicts another one."""
        self._change("partition_concurrency", value)

    def set_partition_worker_concurrency(self, value: int | None) -> None:
        """Change the limit, None removes it; ValueError when it is below 1 or contradicts another one."""
        self._change("partition_worker_concurrency", value)

    def set_partition_limiter(self, value: QueueRateLimit | None) -> None:
        """Change the rate limit of each partition, None removes it; ValueError without `limit` or `period`."""
        self._change("partition_rate_limit", _rate_limit("partition_limiter", value))

    def set_polling_interval_sec(self, value: float) -> None:
        """Change the interval, in seconds; ValueError when it is not above 0."""
        self._change("polling_interval_seconds", value, must_exist=False)

    async def set_global_concurrency_async(self, value: int | None) -> None:
        await _in_thread(lambda: self.set_global_concurrency(value))

    async def set_concurrency_async(self, value: int | None) -> None:
        await _in_thread(lambda: self.set_global_concurrency(value))

    async def set_worker_concurrency_async(self, value: int | None) -> None:
        await _in_thread(lambda: self.set_worker_concurrency(value))

    async def set_limiter_async(self, value: QueueRateLimit | None) -> None:
        await _in_thread(lambda: self.set_limiter(value))

    async def set_partition_concurrency_async(self, value: int | None) -> None:
        await _in_thread(lambda: self.set_partition_concurrency(value))

    async def set_partition_worker_concurrency_async(self, value: int | None) -> None:
        await _in_thread(lambda: self.set_partition_worker_concurrency(value))

    async def set_partition_limiter_async(self, value: QueueRateLimit | None) -> None:
        await _in_thread(lambda: self.set_partition_limiter(value))

    async def set_polling_interval_sec_async(self, value: float) -> None:
        await _in_thread(lambda: self.set_polling_interval_sec(value))

    def enqueue(self, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]:
        """Put a workflow on this queue; as `DBOS.enqueue_workflow`."""
        return EnqueueCalls.enqueue_workflow(self.name, func, *args, **kwargs)

    async def enqueue_async(
        self, func: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandleAsync[R]:
        """As `enqueue`, from async code."""
        return await EnqueueCalls.enqueue_workflow_async(self.name, func, *args, **kwargs)


def _limiter(rate: RateLimit | None) -> QueueRateLimit | None:
    return None if rate is None else {"limit": rate.limit, "period": rate.period_seconds}


def _queue(config: QueueConfig) -> Queue:
    queue = object.__new__(Queue)
    queue.name = config.name
    queue.application_name = config.application_name
    queue.database_backed_queue = True
    return queue


# --- all queues


def _register(engine: Engine, queue: QueueConfig, on_conflict: str) -> Queue:
    overwrite = on_conflict == "always_update"
    if on_conflict not in ("always_update", "never_update"):
        versions = _ask(lambda store: store.list_versions(queue.application_name or "", 1))
        overwrite = not versions or versions[0]["version_name"] == engine.application_version
    is_new = _ask(lambda store: store.find_queue(queue.name)) is None
    found = _ask(lambda store: store.register_queue(queue, engine.clock.now_ms(), overwrite=overwrite))
    if found.application_name not in (None, queue.application_name):
        raise DBOSException(
            f"Queue {queue.name!r} belongs to application {found.application_name!r}, so application "
            f"{queue.application_name!r} cannot register it. Choose another name, or delete that queue first."
        )
    if is_new:
        listens = engine.dispatcher.listens_to
        logger.info(
            "Registered %s; this process %s to it",
            found,
            "listens" if listens is None or queue.name in listens else "does not listen",
        )
    engine.dispatcher.read_configuration_now()
    return _queue(found)


class QueueCalls:
    """Registered queues of the application."""

    @classmethod
    def register_queue(
        cls,
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
        refuse_running_loop("register_queue")
        return cls._register_queue(
            name,
            worker_concurrency=worker_concurrency,
            global_concurrency=global_concurrency,
            partition_concurrency=partition_concurrency,
            partition_worker_concurrency=partition_worker_concurrency,
            partition_limiter=partition_limiter,
            limiter=limiter,
            polling_interval_sec=polling_interval_sec,
            on_conflict=on_conflict,
            concurrency=concurrency,
        )

    @classmethod
    async def register_queue_async(
        cls,
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
        """As `register_queue`, from async code."""
        return await _in_thread(
            lambda: cls._register_queue(
                name,
                worker_concurrency=worker_concurrency,
                global_concurrency=global_concurrency,
                partition_concurrency=partition_concurrency,
                partition_worker_concurrency=partition_worker_concurrency,
                partition_limiter=partition_limiter,
                limiter=limiter,
                polling_interval_sec=polling_interval_sec,
                on_conflict=on_conflict,
                concurrency=concurrency,
            )
        )

    @classmethod
    def _register_queue(
        cls,
        name: str,
        *,
        partition_limiter: QueueRateLimit | None,
        limiter: QueueRateLimit | None,
        polling_interval_sec: float,
        on_conflict: str,
        concurrency: int | None,
        global_concurrency: int | None,
        **limits: int | None,
    ) -> Queue:
        engine = engine_here()
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
        total = concurrency if global_concurrency is None else global_concurrency
        queue = QueueConfig(
            name,
            engine.settings.name,
            total,
            rate_limit=_rate_limit("limiter", limiter),
            partition_rate_limit=_rate_limit("partition_limiter", partition_limiter),
            polling_interval_seconds=polling_interval_sec,
            **cast(Any, limits),
        )
        _check_numbers(queue)
        check(queue)
        return _register(engine, queue, on_conflict)

    @classmethod
    def retrieve_queue(cls, name: str) -> Queue | None:
        """The queue of that name, whoever owns it; None when it is not registered."""
        refuse_running_loop("retrieve_queue")
        return _retrieve(name)

    @classmethod
    async def retrieve_queue_async(cls, name: str) -> Queue | None:
        """As `retrieve_queue`, from async code."""
        return await _in_thread(lambda: _retrieve(name))

    @classmethod
    def list_queues(cls, *, application_name: str | list[str] | None = None) -> list[Queue]:
        """The registered queues, by name.

        Args:
            application_name: The queues of this application, or of these, and those nobody owns. Default this
                application; an empty text or list is all applications.
        """
        refuse_running_loop("list_queues")
        return _list(application_name)

    @classmethod
    async def list_queues_async(cls, *, application_name: str | list[str] | None = None) -> list[Queue]:
        """As `list_queues`, from async code."""
        return await _in_thread(lambda: _list(application_name))

    @classmethod
    def delete_queue(cls, name: str) -> None:
        """Forget a queue. Workflows that run go on; those that wait stay, and start when it is registered again."""
        refuse_running_loop("delete_queue")
        _delete(name)

    @classmethod
    async def delete_queue_async(cls, name: str) -> None:
        """As `delete_queue`, from async code."""
        await _in_thread(lambda: _delete(name))

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


def _retrieve(name: str) -> Queue | None:
    check_text(name, "queue name")
    found = _ask(lambda store: store.find_queue(name))
    return None if found is None else _queue(found)


def _list(application_name: str | list[str] | None) -> list[Queue]:
    if application_name is None:
        names: list[str] | None = [engine_here().settings.name]
    elif isinstance(application_name, str):
        names = [application_name] if application_name else None
    else:
        names = list(application_name) or None
    return [_queue(found) for found in _ask(lambda store: store.list_queues(names))]


def _delete(name: str) -> None:
    check_text(name, "queue name")
    _ask(lambda store: store.delete_queue(name))
    engine_here().dispatcher.read_configuration_now()
