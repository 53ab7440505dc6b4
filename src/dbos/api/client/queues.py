"""The queues of applications, seen by a client."""

from __future__ import annotations

from typing import Any, Literal

from ...error import DBOSException
from ..queue import Queue, QueueRateLimit, make_queue
from ..queues import configure, delete, list_queues, register, retrieve
from .session import Session, warn_on_loop

ClientConflictResolution = Literal["always_update", "never_update"]


class QueueMethods:
    """`DBOSClient.register_queue` and the like."""

    _session: Session

    def register_queue(
        self,
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
        warn_on_loop("register_queue")
        return self._register_queue(
            name,
            application_name,
            on_conflict,
            global_concurrency=global_concurrency,
            partition_concurrency=partition_concurrency,
            partition_worker_concurrency=partition_worker_concurrency,
            partition_limiter=partition_limiter,
            limiter=limiter,
            worker_concurrency=worker_concurrency,
            polling_interval_sec=polling_interval_sec,
            concurrency=concurrency,
        )

    async def register_queue_async(
        self,
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
        """As `register_queue`, from async code."""
        return await self._session.in_thread(
            lambda: self._register_queue(
                name,
                application_name,
                on_conflict,
                global_concurrency=global_concurrency,
                partition_concurrency=partition_concurrency,
                partition_worker_concurrency=partition_worker_concurrency,
                partition_limiter=partition_limiter,
                limiter=limiter,
                worker_concurrency=worker_concurrency,
                polling_interval_sec=polling_interval_sec,
                concurrency=concurrency,
            )
        )

    def _register_queue(self, name: str, application_name: str | None, on_conflict: str, **arguments: Any) -> Queue:
        session = self._session
        queue = configure(name, application_name or session.core.application_name, **arguments)
        if on_conflict not in ("always_update", "never_update"):
            raise DBOSException(
                f"on_conflict must be 'always_update' or 'never_update' for a client, which has no version, not "
                f"{on_conflict!r}"
            )
        return make_queue(session, register(session, queue, overwrite=on_conflict == "always_update"))

    def retrieve_queue(self, name: str) -> Queue | None:
        """The queue of that name, whoever owns it; None when it is not registered."""
        warn_on_loop("retrieve_queue")
        return retrieve(self._session, name)

    async def retrieve_queue_async(self, name: str) -> Queue | None:
        """As `retrieve_queue`, from async code."""
        return await self._session.in_thread(lambda: retrieve(self._session, name))

    def list_queues(self, *, application_name: str | list[str] | None = None) -> list[Queue]:
        """The registered queues, by name.

        Args:
            application_name: The queues of this application, or of these, and those nobody owns. Default the client's
                application, or all if it has none; an empty text or list is all applications.
        """
        warn_on_loop("list_queues")
        return list_queues(self._session, application_name)

    async def list_queues_async(self, *, application_name: str | list[str] | None = None) -> list[Queue]:
        """As `list_queues`, from async code."""
        return await self._session.in_thread(lambda: list_queues(self._session, application_name))

    def delete_queue(self, name: str) -> None:
        """Forget a queue. Workflows that run go on; those that wait stay, and start when it is registered again.

        A queue of another application is deleted too, with a warning that names the owner.
        """
        warn_on_loop("delete_queue")
        delete(self._session, name)

    async def delete_queue_async(self, name: str) -> None:
        """As `delete_queue`, from async code."""
        await self._session.in_thread(lambda: delete(self._session, name))
