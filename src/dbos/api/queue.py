"""One queue: its limits, read and changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypedDict, TypeVar

from ..engine.errors import EngineStopped
from ..engine.execution import public_error
from ..engine.plans import Plan, Read
from ..engine.running_loop import running_loop
from ..error import DBOSException
from ..logs import logger
from ..storage.once import Once
from ..storage.store import Store
from ..types import QueueConfig, RateLimit
from .enqueueing import EnqueueCalls
from .handles import WorkflowHandle, WorkflowHandleAsync
from .runtime import APPLICATION, Host

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


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


# In the order in which they are reported (03 R4): these, the limiter per partition, the others, the limiter.
FIRST_CHECKS: tuple[Check, ...] = (_positive("partition_concurrency"), _positive("partition_worker_concurrency"))
OTHER_CHECKS: tuple[Check, ...] = (
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
# The database keeps numbers in four bytes.
LARGEST_NUMBER = 2**31 - 1
# Longer than anybody waits; in milliseconds still a number of eight bytes.
LONGEST_SECONDS = 1e11


def check(queue: QueueConfig, checks: tuple[Check, ...], changed: str | None = None) -> None:
    """ValueError for limits that contradict each other; only those that concern `changed`, if given."""
    for names, holds, message in checks:
        if (changed is None or changed in names) and not holds(queue):
            values = {name: getattr(queue, name) for name in names}
            raise ValueError(f"Queue {queue.name!r}: {message.format(**values)}")


def rate_limit(name: str, limiter: QueueRateLimit | None) -> RateLimit | None:
    if limiter is None:
        return None
    if not isinstance(limiter, dict):
        raise ValueError(f"The {name} is a dictionary like {{'limit': 10, 'period': 60}}, not {limiter!r}")
    missing = [key for key in ("limit", "period") if limiter.get(key) is None]
    if missing:
        raise ValueError(f"The {name} {limiter!r} lacks {' and '.join(map(repr, missing))}")
    _check_number(f"The limit of {name}", limiter["limit"])
    _check_seconds(f"The period of {name}", limiter["period"])
    return RateLimit(limiter["limit"], float(limiter["period"]))


def check_numbers(queue: QueueConfig) -> None:
    for name in ("global_concurrency", "worker_concurrency", "partition_concurrency", "partition_worker_concurrency"):
        value = getattr(queue, name)
        if value is not None:
            _check_number(f"Queue {queue.name!r}: {name}", value)
    _check_seconds(f"Queue {queue.name!r}: polling_interval_sec", queue.polling_interval_seconds)


def _check_number(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{what} must be a whole number, not {value!r}")
    if abs(value) > LARGEST_NUMBER:
        raise ValueError(f"{what} must not be above {LARGEST_NUMBER}, but is {value}")


def _check_seconds(what: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= LONGEST_SECONDS:
        raise ValueError(f"{what} must be a number of seconds, not {value!r}")


def ask(host: Host, query: Callable[[Store], T]) -> T:
    """A query of the store, repeated until it answers. Queues are never recorded: a replay asks again."""

    def plan() -> Plan[T]:
        answer: T = yield Read(query)
        return answer

    return host.run(plan())


def warn_of_other_owner(host: Host, name: str, owner: str | None, what: str) -> None:
    """Any process may change any queue (03 R16, R22). It shall not happen unnoticed."""
    own = host.core.application_name
    if own is not None and owner not in (None, own):
        logger.warning("Queue %r, which application %r has %s, belongs to application %r", name, own, what, owner)


async def in_thread(host: Host, function: Callable[[], T]) -> T:
    try:
        return await host.core.loops.in_thread(function)
    except EngineStopped as stopped:
        raise public_error(stopped) from stopped


# --- one queue


class Queue:
    """A registered queue. Its limits are read from the database whenever they are asked for.

    A setter also changes a queue of another application, with a warning that names the owner.

    Attributes:
        name: Its address, the same for all applications.
        application_name: Who owns it, as last read; None is nobody.
    """

    name: str
    application_name: str | None
    database_backed_queue: bool
    _host: Host

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
        found = ask(self._host, lambda store: store.find_queue(name))
        if found is None:
            raise DBOSException(f"Queue {name!r} does not exist any more; register it again")
        self.application_name = found.application_name
        return found

    def _change(self, field: str, value: Any, *, must_exist: bool = True) -> None:
        core = self._host.core
        if running_loop() is not None:
            logger.warning("Queue %r is changed on a running event loop, which waits for the database", self.name)
        while True:
            name = self.name
            found = ask(self._host, lambda store: store.find_queue(name))
            if found is None:
                if must_exist:
                    raise DBOSException(f"Queue {name!r} does not exist any more; register it again")
                return
            changed = dataclasses.replace(found, **{field: value})
            check_numbers(changed)
            check(changed, FIRST_CHECKS + OTHER_CHECKS, field)
            once = Once()
            if ask(self._host, lambda store: store.update_queue(changed, core.clock.now_ms(), once=once)):
                warn_of_other_owner(self._host, name, found.application_name, f"changed ({field})")
                break
        core.note_reconfigured()

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
        return (await in_thread(self._host, self._read_quietly)).global_concurrency

    async def get_concurrency_async(self) -> int | None:
        return (await in_thread(self._host, self._read_quietly)).global_concurrency

    async def get_worker_concurrency_async(self) -> int | None:
        return (await in_thread(self._host, self._read_quietly)).worker_concurrency

    async def get_limiter_async(self) -> QueueRateLimit | None:
        return _limiter((await in_thread(self._host, self._read_quietly)).rate_limit)

    async def get_partition_concurrency_async(self) -> int | None:
        return (await in_thread(self._host, self._read_quietly)).partition_concurrency

    async def get_partition_worker_concurrency_async(self) -> int | None:
        return (await in_thread(self._host, self._read_quietly)).partition_worker_concurrency

    async def get_partition_limiter_async(self) -> QueueRateLimit | None:
        return _limiter((await in_thread(self._host, self._read_quietly)).partition_rate_limit)

    async def get_polling_interval_sec_async(self) -> float:
        return (await in_thread(self._host, self._read_quietly)).polling_interval_seconds

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
        self._change("rate_limit", rate_limit("limiter", value), must_exist=False)

    def set_partition_concurrency(self, value: int | None) -> None:
        """Change the limit, None removes it; ValueError when it is below 1 or contradicts another one."""
        self._change("partition_concurrency", value)

    def set_partition_worker_concurrency(self, value: int | None) -> None:
        """Change the limit, None removes it; ValueError when it is below 1 or contradicts another one."""
        self._change("partition_worker_concurrency", value)

    def set_partition_limiter(self, value: QueueRateLimit | None) -> None:
        """Change the rate limit of each partition, None removes it; ValueError without `limit` or `period`."""
        self._change("partition_rate_limit", rate_limit("partition_limiter", value))

    def set_polling_interval_sec(self, value: float) -> None:
        """Change the interval, in seconds; ValueError when it is not above 0."""
        self._change("polling_interval_seconds", value, must_exist=False)

    async def set_global_concurrency_async(self, value: int | None) -> None:
        await in_thread(self._host, lambda: self.set_global_concurrency(value))

    async def set_concurrency_async(self, value: int | None) -> None:
        await in_thread(self._host, lambda: self.set_global_concurrency(value))

    async def set_worker_concurrency_async(self, value: int | None) -> None:
        await in_thread(self._host, lambda: self.set_worker_concurrency(value))

    async def set_limiter_async(self, value: QueueRateLimit | None) -> None:
        await in_thread(self._host, lambda: self.set_limiter(value))

    async def set_partition_concurrency_async(self, value: int | None) -> None:
        await in_thread(self._host, lambda: self.set_partition_concurrency(value))

    async def set_partition_worker_concurrency_async(self, value: int | None) -> None:
        await in_thread(self._host, lambda: self.set_partition_worker_concurrency(value))

    async def set_partition_limiter_async(self, value: QueueRateLimit | None) -> None:
        await in_thread(self._host, lambda: self.set_partition_limiter(value))

    async def set_polling_interval_sec_async(self, value: float) -> None:
        await in_thread(self._host, lambda: self.set_polling_interval_sec(value))

    def enqueue(self, func: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> WorkflowHandle[R]:
        """Put a workflow on this queue; as `DBOS.enqueue_workflow`. A client's queue refuses: it knows no functions."""
        self._refuse_to_enqueue()
        return EnqueueCalls.enqueue_workflow(self.name, func, *args, **kwargs)

    async def enqueue_async(
        self, func: Callable[P, Coroutine[Any, Any, R]], *args: P.args, **kwargs: P.kwargs
    ) -> WorkflowHandleAsync[R]:
        """As `enqueue`, from async code."""
        self._refuse_to_enqueue()
        return await EnqueueCalls.enqueue_workflow_async(self.name, func, *args, **kwargs)

    def _refuse_to_enqueue(self) -> None:
        if self._host is not APPLICATION:
            raise DBOSException(
                f"Queue {self.name!r} comes from a DBOSClient, which knows no functions. Enqueue by name with "
                f"client.enqueue({{'workflow_name': ..., 'queue_name': {self.name!r}}}, ...)"
            )


def _limiter(rate: RateLimit | None) -> QueueRateLimit | None:
    return None if rate is None else {"limit": rate.limit, "period": rate.period_seconds}


def make_queue(host: Host, config: QueueConfig) -> Queue:
    queue = object.__new__(Queue)
    queue.name = config.name
    queue.application_name = config.application_name
    queue.database_backed_queue = True
    queue._host = host
    return queue
