"""Warnings about work that waits for ever: an unknown queue, one that others serve, a partition key missing or useless.

An enqueue is compared with the configurations that the dispatcher has read last, so it costs no question. Those may be
older than the queue; so what looks wrong is looked at again with the next ones, which are read soon, and only then
told: once per queue and reason.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from ..logs import logger
from ..types import QueueConfig
from .context import Options

# Queues of the library itself have no row.
INTERNAL_PREFIX = "_dbos_"


class Placed(NamedTuple):
    """Work on a queue. `has_key` None is unknown; the application is the one that may run it."""

    queue_name: str
    has_key: bool | None
    application_name: str | None


class QueueWarnings:
    """What was enqueued, compared with what is registered."""

    def __init__(self, read_soon: Callable[[], None]) -> None:
        self._read_soon = read_soon
        self._lock = threading.RLock()
        self._known: Mapping[str, QueueConfig] = {}
        self._suspects: set[Placed] = set()
        self._told: set[Placed] = set()
        self._called: set[str] = set()

    def note(self, queue_name: str, has_key: bool | None, application_name: str | None) -> None:
        """Work was put on a queue."""
        placed = Placed(queue_name, has_key, application_name)
        if queue_name.startswith(INTERNAL_PREFIX) or problem(placed, self._known) is None:
            return
        with self._lock:
            if placed in self._suspects or placed in self._told:
                return
            self._suspects.add(placed)
        self._read_soon()

    def note_call(self, workflow_name: str, options: Options) -> None:
        """A workflow is called, not enqueued, with these options around it; told once per workflow."""
        without_effect = options.for_queues() + (["app_version"] if options.app_version is not None else [])
        if not without_effect or workflow_name in self._called:
            return
        self._called.add(workflow_name)
        logger.warning(
            "Workflow %r was called within SetEnqueueOptions: a call runs here and now, so %s has no effect. Use "
            "DBOS.enqueue_workflow to put it on a queue",
            workflow_name,
            " and ".join(without_effect),
        )

    def suspects(self) -> Collection[Placed]:
        """What to judge with configurations that are read from now on."""
        with self._lock:
            return tuple(self._suspects)

    def judge(self, suspects: Collection[Placed], known: Mapping[str, QueueConfig]) -> None:
        """Tell of those suspects that are wrong with the configurations of all queues, whoever owns them."""
        with self._lock:
            self._known = known
            self._suspects.difference_update(suspects)
        for placed in suspects:
            text = problem(placed, known)
            if text is not None:
                with self._lock:
                    self._told.add(placed)
                logger.warning("%s", text)


def problem(placed: Placed, known: Mapping[str, QueueConfig]) -> str | None:
    """Why work waits for ever, or is not treated as it asks; None when all is well."""
    name, has_key, application = placed
    queue = known.get(name)
    if queue is None:
        others = ", ".join(sorted(known)[:10]) or "none"
        return (
            f"A workflow was put on queue {name!r}, which is not registered: it waits until "
            f"DBOS.register_queue({name!r}) is called. Registered are: {others}"
        )
    if queue.application_name not in (None, application):
        return (
            f"A workflow of application {application!r} was put on queue {name!r}, which belongs to application "
            f"{queue.application_name!r}: it waits for ever. Use a queue of its own application, or enqueue it by name "
            f"with the option application_name={queue.application_name!r}"
        )
    if queue.is_partitioned and has_key is False:
        return (
            f"A workflow without a partition key was put on queue {name!r}, which has limits per partition: it waits "
            f"for ever. Enqueue it with SetEnqueueOptions(queue_partition_key=...)"
        )
    if not queue.is_partitioned and has_key:
        return (
            f"A workflow with a partition key was put on queue {name!r}, which has no limits per partition: the key "
            f"has no effect. Register the queue with partition_concurrency or another limit per partition"
        )
    return None
