"""Durable operations as plans, and the drivers that carry them out.

A plan is a generator that yields what it needs and receives the answer. It has no threads, no `await` and no SQL, so
each operation is written once; `drive` runs it on the calling thread, `drive_async` on the event loop, and the
simulation in the tests with a virtual clock and a crash at any yield.

    Commit(record)          append to the journal; resumes when durable, with the record's answer
    Read(query)             a read from the store, repeated until the database answers
    Wait(waiter, until_ms)  sleep until a signal fires or a time comes; resumes with whether it fired
    Call(function, ...)     run user code, sync or async
    Pause(seconds)          plain delay between attempts; ends early when the execution is told to stop
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, TypeVar, Union

from ..records import Record
from ..storage.store import Store
from .signals import Waiter

T = TypeVar("T")


@dataclass(slots=True)
class Commit:
    """`is_last` tells that little is left to do after it: who runs the plan in the background need not stay for the
    answer."""

    record: Record
    is_last: bool = False


@dataclass(slots=True)
class Read:
    query: Callable[[Store], Any]


@dataclass(slots=True)
class Wait:
    waiter: Waiter
    until_ms: int | None = None


@dataclass(slots=True)
class Call:
    """`is_async` tells that the function gives an awaitable. `timeout_seconds` limits an async attempt; `preempt`
    is a waiter that, when fired, cancels it."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] | None = None
    is_async: bool = False
    in_thread: bool = False
    timeout_seconds: float | None = None
    preempt: Waiter | None = None


@dataclass(slots=True)
class Pause:
    seconds: float
    waiter: Waiter


Effect = Union[Commit, Read, Wait, Call, Pause]
Plan = Generator[Effect, Any, T]


class AttemptTimedOut(Exception):
    """A driver's answer to a Call whose time was up; `cause` is what the clean-up of the body raised."""

    def __init__(self, cause: BaseException | None = None) -> None:
        self.cause = cause


class AttemptPreempted(BaseException):
    """A driver's answer to a Call that was cancelled because its `preempt` waiter fired."""
