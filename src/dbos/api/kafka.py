"""`@DBOS.kafka_consumer`: a workflow for each message."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..engine.registry import TEMPORARY_PREFIX, WorkflowInfo
from ..error import DBOSInitializationError
from ..logs import logger
from ..types import KAFKA_ORDERED_QUEUE_NAME, KAFKA_QUEUE_NAME, KafkaMessage
from .decorators import WORKFLOW_ATTRIBUTE, find_target
from .enqueueing import check_queue_name
from .runtime import state

if TYPE_CHECKING:
    from ..engine.kafka import ConsumerSpec

KafkaOrdering = Literal["none", "partition", "topic"]

W = TypeVar("W", bound=Callable[[KafkaMessage], Any])

ORDERINGS = (None, "none", "partition", "topic")
MAX_GROUP_ID_LENGTH = 255


class KafkaCalls:
    """`DBOS.kafka_consumer`."""

    @staticmethod
    def kafka_consumer(
        config: dict[str, Any],
        topics: list[str],
        *,
        ordering: KafkaOrdering | None = None,
        batch_size: int = 250,
        queue_name: str | None = None,
    ) -> Callable[[W], W]:
        """Run a workflow for each message of some topics; put it above `@DBOS.workflow()` or `@DBOS.step()`.

            @DBOS.kafka_consumer({"bootstrap.servers": "localhost:9092", "group.id": "shop"}, ["orders"])
            @DBOS.workflow()
            def on_order(message: KafkaMessage) -> None: ...

        A message is enqueued, and its offset committed after that, so that it runs once for each group, whatever
        crashes. A workflow that fails does not hold back the next message. Consumers start at each launch, or at once
        when they are declared after it, in a thread each; needs the package confluent-kafka.

        Args:
            config: For the client library confluent-kafka. `group.id` should be set; offsets are stored by this
                library and committed automatically. Without `auto.offset.reset` it starts with the oldest message.
            topics: Their names, or regular expressions that begin with `^`.
            ordering: "partition" or "topic" run one message of each partition or topic at a time, in order, over all
                processes; None or "none" as many at a time as the queue allows.
            batch_size: How many messages are enqueued in one transaction, at most. Default 250.
            queue_name: The queue of the workflows, which must not be partitioned; default one without limits. Not
                together with an ordering, which has a queue of its own.

        Raises:
            DBOSInitializationError: an argument has no meaning, or an earlier consumer of this group takes one of the
                topics.
            DBOSWorkflowFunctionNotFoundError: the function is neither a workflow nor a step.
            DBOSException: confluent-kafka is not installed.
        """
        _check_arguments(config, topics, ordering, batch_size, queue_name)
        # Only now: importing the package stays quick.
        from ..engine.kafka import ConsumerSpec, client_library

        client_library()
        registry = state.registry

        def decorate(func: W) -> W:
            # A look at what a message would call: refuses functions that are not registered.
            find_target(func, (), {})
            info: WorkflowInfo = getattr(func, WORKFLOW_ATTRIBUTE)
            name = info.name.removeprefix(TEMPORARY_PREFIX)
            ordered = ordering in ("partition", "topic")
            spec = ConsumerSpec(
                name,
                lambda message: find_target(func, (message,), {}),
                _complete(config, name, topics),
                tuple(topics),
                ordering or "none",
                batch_size,
                queue_name or (KAFKA_ORDERED_QUEUE_NAME if ordered else KAFKA_QUEUE_NAME),
            )
            _check_group(spec, registry.kafka_consumers)
            engine = state.instance.engine if state.instance is not None else None
            if engine is not None:
                engine.kafka.open([spec])
            registry.kafka_consumers.append(spec)
            if engine is not None:
                engine.kafka.start()
            return func

        return decorate


def _check_arguments(
    config: dict[str, Any], topics: Sequence[str], ordering: Any, batch_size: int, queue_name: str | None
) -> None:
    if not isinstance(config, dict):
        raise DBOSInitializationError(f"The config of a Kafka consumer is a dictionary, not {config!r}")
    named = not isinstance(topics, str) and all(isinstance(topic, str) and topic for topic in topics)
    if not named or not topics:
        raise DBOSInitializationError(f"The topics of a Kafka consumer are a list of names, not {topics!r}")
    if ordering not in ORDERINGS:
        raise DBOSInitializationError(
            f"The ordering of a Kafka consumer is 'partition', 'topic', 'none' or None, not {ordering!r}"
        )
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise DBOSInitializationError(f"The batch_size of a Kafka consumer is a number from 1 on, not {batch_size!r}")
    if queue_name is None:
        return
    if ordering in ("partition", "topic"):
        raise DBOSInitializationError(
            f"The Kafka ordering {ordering!r} has a queue of its own and cannot be combined with queue_name "
            f"({queue_name!r}). Leave one of them out."
        )
    try:
        check_queue_name(queue_name)
    except Exception as error:
        raise DBOSInitializationError(str(error)) from error


def _check_group(spec: ConsumerSpec, others: Sequence[ConsumerSpec]) -> None:
    for other in others:
        if other.group_id != spec.group_id:
            continue
        shared = sorted(set(other.topics) & set(spec.topics))
        if shared:
            raise DBOSInitializationError(
                f"The Kafka consumers of {other.name!r} and {spec.name!r} have the same group.id {spec.group_id!r} "
                f"and topic {', '.join(map(repr, shared))}, so each message would go to one of them at random. Give "
                f"each its own group.id."
            )
        logger.warning(
            "The Kafka consumers of %r and %r share the group.id %r; each change of one makes the other wait",
            other.name,
            spec.name,
            spec.group_id,
        )


def _complete(config: dict[str, Any], name: str, topics: Sequence[str]) -> dict[str, Any]:
    """A copy of the configuration with what this library relies on."""
    complete = dict(config)
    complete.setdefault("auto.offset.reset", "earliest")
    if _is_on(complete.get("enable.auto.offset.store")):
        logger.warning(
            "The Kafka consumer of %r sets enable.auto.offset.store, which would lose messages in a crash: it is off",
            name,
        )
    complete["enable.auto.offset.store"] = False
    if _is_off(complete.get("enable.auto.commit")):
        logger.warning(
            "The Kafka consumer of %r switches enable.auto.commit off; it is on, since offsets are stored only after "
            "their messages were enqueued",
            name,
        )
        complete["enable.auto.commit"] = True
    if complete.get("group.id") is None:
        parts = [re.sub(r"[^a-zA-Z0-9\-]", "", part) for part in (name, *topics)]
        complete["group.id"] = "-".join(["dbos-kafka-group", *parts])[:MAX_GROUP_ID_LENGTH]
        logger.warning(
            "The Kafka consumer of %r has no group.id; it uses %r, which changes with its name and topics",
            name,
            complete["group.id"],
        )
    return complete


def _is_off(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() in ("false", "0")
    return value is not None and value in (False, 0)


def _is_on(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() in ("true", "1")
    return value is not None and value in (True, 1)
