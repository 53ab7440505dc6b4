"""What a client is connected with: the system database, opened once, and the way in which its calls run there.

A client's calls belong to no workflow, also when workflow code makes them: they run in an empty context, with no
execution, no identity and no options around them.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from ...config import Settings
from ...engine.context import Context, Options, current_context, entered
from ...engine.errors import EngineStopped
from ...engine.plans import Plan
from ...engine.running_loop import running_loop
from ...error import DBOSException
from ...logs import logger
from ..runtime import in_fresh_thread, signature_without_core

if TYPE_CHECKING:
    from ...engine.core import Core

P = ParamSpec("P")
T = TypeVar("T")


class Session:
    """The connection of one client; its methods, handles and queues share it."""

    def __init__(
        self, settings: Settings, application_name: str | None, *, retry_connection_errors: bool, lazy: bool
    ) -> None:
        self.settings = settings
        self._application_name = application_name
        self._retry_connection_errors = retry_connection_errors
        # Reentrant, as a signal handler may destroy the client on the thread that opens it.
        self._lock = threading.RLock()
        self._core: Core | None = None
        self._process = os.getpid()
        # What a parent process had opened before it forked this one. It must not be closed here.
        self._inherited: Core | None = None
        self._destroyed = False
        if not lazy:
            self.open()

    @property
    def core(self) -> Core:
        """What the client talks to the database with; opened when it is first needed, in each process."""
        core = self._core
        return core if core is not None and self._process == os.getpid() else self.open()

    def open(self) -> Core:
        with self._lock:
            self.check()
            if self._process != os.getpid():
                # Threads and connections stay behind in the parent.
                self._inherited, self._core, self._process = self._core, None, os.getpid()
            if self._core is None:
                self._core = self._connect()
            return self._core

    async def open_async(self) -> Core:
        """As `core`, without blocking the loop while it connects."""
        core = self._core
        if core is not None and self._process == os.getpid():
            return core
        self.check()
        return await in_fresh_thread(self.open)

    def check(self) -> None:
        """DBOSException after `destroy`."""
        if self._destroyed:
            raise _destroyed()

    def _connect(self) -> Core:
        # Only now: importing the package stays quick.
        from ...engine.core import Core
        from ...storage.opening import open_existing_store

        try:
            store = open_existing_store(self.settings)
        except Exception as error:
            logger.error("DBOSClient cannot use the system database %s: %s", self.settings.masked_database_url, error)
            raise
        core = Core(
            self.settings,
            store,
            application_name=self._application_name,
            retry_connection_errors=self._retry_connection_errors,
        )
        core.open()
        return core

    def destroy(self) -> None:
        """End threads and connections; what waits, and what comes later, meets a DBOSException."""
        with self._lock:
            self._destroyed = True
            if self._process != os.getpid():
                return
            core, self._core = self._core, None
        if core is not None:
            core.close()

    # --- running plans

    def run(self, plan: Plan[T]) -> T:
        """Carry a plan out on this thread."""
        core = self.core
        with entered(Context()):
            try:
                return core.run(plan)
            except EngineStopped as stopped:
                raise _destroyed() from stopped

    def call(self, make: Callable[[Core], Plan[T]], *, takes_id: bool = False) -> T:
        """Make a plan and carry it out; with `takes_id` the id of a `SetWorkflowID` block is there for it."""
        core = self.core
        with entered(_surroundings(takes_id)):
            plan = make(core)
        return self.run(plan)

    async def call_async(self, make: Callable[[Core], Plan[T]], *, takes_id: bool = False) -> T:
        """As `call`, on the running event loop."""
        core = await self.open_async()
        with entered(_surroundings(takes_id)):
            try:
                return await core.run_async(make(core))
            except EngineStopped as stopped:
                raise _destroyed() from stopped

    async def in_thread(self, function: Callable[[], T]) -> T:
        """Run a blocking function off the loop."""
        core = await self.open_async()
        try:
            return await core.loops.in_thread(function)
        except EngineStopped as stopped:
            raise _destroyed() from stopped


def _surroundings(takes_id: bool) -> Context:
    """Empty, but for the one thing around a client's call that some calls take (04 R504)."""
    context = current_context()
    if context is None or not takes_id:
        return Context()
    return Context(options=Options(assigned_id=context.options.assigned_id))


def _destroyed() -> DBOSException:
    return DBOSException("This DBOSClient was destroyed, and cannot be used any more. Make another one")


class HasSession(Protocol):
    _session: Session


def blocking(
    name: str, operation: Callable[Concatenate[Core, P], Plan[T]], *, warns: bool = False
) -> Callable[Concatenate[Any, P], T]:
    """The blocking form of an operation as a method of a client; with `warns` it says so when it blocks a loop."""

    def call(self: HasSession, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if warns:
            warn_on_loop(name)
        return self._session.call(lambda core: operation(core, *args, **kwargs))

    describe(call, name, operation)
    return call


def twin(
    name: str, operation: Callable[Concatenate[Core, P], Plan[T]]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]:
    """The async form of the same operation."""

    async def call(self: HasSession, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._session.call_async(lambda core: operation(core, *args, **kwargs))

    describe(call, f"{name}_async", operation)
    return call


def describe(call: Any, name: str, operation: Callable[..., Any]) -> None:
    functools.update_wrapper(call, operation, assigned=("__module__",))
    call.__name__ = name
    call.__qualname__ = f"DBOSClient.{name}"
    # What is recorded in workflow code does not concern a client.
    call.__doc__ = (operation.__doc__ or "").partition("\n    Durability:")[0].rstrip()
    call.__signature__ = signature_without_core(operation, first="self")


def warn_on_loop(name: str) -> None:
    if running_loop() is not None:
        logger.warning(
            "DBOSClient.%s was called on a running event loop, which it blocks. Use await client.%s_async(...)",
            name,
            name,
        )
