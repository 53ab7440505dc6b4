"""Kafka consumers: one workflow for each message.

A consumer takes a batch of messages, enqueues their workflows in one transaction, and only then lets the client library
commit the offsets. What comes again after a crash finds its workflow by an id that is made of topic, partition, group
and offset, so each message is run once per group. Order is kept by a partitioned queue of the library's own, with one
workflow at a time per key, and by creation times that grow from message to message.
"""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..error import DBOSException, DBOSInitializationError
from ..logs import logger
from ..records import Enqueue
from ..storage.store import BulkRefused, Store
from ..types import KAFKA_ORDERED_QUEUE_NAME, KAFKA_QUEUE_NAME, KafkaMessage, QueueConfig
from .context import Context, Options
from .enqueueing import note_enqueued, record_of_target
from .errors import EngineStopped
from .starting import Target

if TYPE_CHECKING:
    from .engine import Engine

T = TypeVar("T")

# How long a consumer waits for a first message before it looks whether it shall stop.
POLL_SECONDS = 0.25
# Waits between tries after an error.
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
# How long a client that is broken may take to close, before it is left behind.
LONGEST_CLOSE_SECONDS = 20.0
# An error that repeats is logged once in so many seconds, with the number of times.
REPORT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """A declared consumer: `config` is complete, but for the callback of errors, which is wrapped."""

    name: str
    make_target: Callable[[KafkaMessage], Target]
    config: Mapping[str, Any]
    topics: tuple[str, ...]
    ordering: str
    batch_size: int
    queue_name: str

    @property
    def group_id(self) -> str:
        group_id: str = self.config["group.id"]
        return group_id

    def partition_key(self, topic: str, partition: int) -> str | None:
        if self.ordering == "partition":
            return f"{self.group_id}:{topic}:{partition}"
        return f"{self.group_id}:{topic}" if self.ordering == "topic" else None


def client_library() -> Any:
    """The package confluent_kafka; DBOSException without it."""
    try:
        import confluent_kafka
    except ModuleNotFoundError as error:
        raise DBOSException(
            f"Kafka consumers need the package confluent-kafka (module {error.name!r} is missing): "
            f"pip install 'dbos[kafka]'"
        ) from error
    return confluent_kafka


class Consumers:
    """The consumers of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._opened: list[Consumer] = []
        self._running: list[Consumer] = []

    def open(self, specs: Iterable[ConsumerSpec]) -> None:
        """Check each consumer and make its client; DBOSInitializationError if one of them cannot work."""
        for spec in specs:
            self._check_queue(spec)
            consumer = Consumer(self._engine, spec)
            consumer.open()
            with self._lock:
                self._opened.append(consumer)
            if spec.queue_name in (KAFKA_QUEUE_NAME, KAFKA_ORDERED_QUEUE_NAME):
                interval_seconds = self._engine.settings.kafka_queue_polling_interval_seconds
                limit = 1 if spec.queue_name == KAFKA_ORDERED_QUEUE_NAME else None
                queue = QueueConfig(
                    spec.queue_name, partition_concurrency=limit, polling_interval_seconds=interval_seconds
                )
                self._engine.dispatcher.add_internal_queue(queue)

    def start(self) -> None:
        """Begin to consume with all that are open."""
        with self._lock:
            opened, self._opened = self._opened, []
            self._running += opened
        for consumer in opened:
            consumer.start()

    def stop(self) -> None:
        """Stop consuming; what has not been enqueued comes again."""
        with self._lock:
            consumers, self._opened, self._running = [*self._running, *self._opened], [], []
        for consumer in consumers:
            consumer.signal_stop()
        for consumer in consumers:
            consumer.stop()

    def _check_queue(self, spec: ConsumerSpec) -> None:
        if spec.queue_name in (KAFKA_QUEUE_NAME, KAFKA_ORDERED_QUEUE_NAME):
            return
        listens_to = self._engine.dispatcher.listens_to
        if listens_to is not None and spec.queue_name not in listens_to:
            logger.warning(
                "The Kafka consumer of %r enqueues on %r, which this process does not serve: name the queue in "
                "DBOS.listen_queues, or let another process serve it",
                spec.name,
                spec.queue_name,
            )
        found = self._engine.drivers.read(lambda store: store.find_queue(spec.queue_name))
        if found is not None and found.is_partitioned:
            raise DBOSInitializationError(
                f"The Kafka consumer of {spec.name!r} enqueues on {spec.queue_name!r}, which is partitioned: its "
                f"messages have no partition key and would never run. Use a queue without partition limits, or "
                f"ordering='partition' or 'topic' without queue_name."
            )


class RepeatedErrors:
    """Logs the first error of a kind, and then at most one in a while, with how many there were."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._seen: dict[Any, tuple[float, int]] = {}

    def report(self, kind: Any, error: object) -> None:
        now = self._clock()
        reported_at, unreported = self._seen.get(kind, (None, 0))
        if reported_at is not None and now - reported_at < REPORT_SECONDS:
            self._seen[kind] = (reported_at, unreported + 1)
            return
        self._seen[kind] = (now, 0)
        more = (
            f" ({unreported} more like it in the last {now - reported_at:.0f} s)" if reported_at and unreported else ""
        )
        logger.error("%s: %s%s", self._what, error, more)


class Consumer:
    """One consumer with its thread.

    `dropped` counts the messages for which no workflow could be made.
    """

    def __init__(self, engine: Engine, spec: ConsumerSpec) -> None:
        self._engine = engine
        self._spec = spec
        self._client: Any = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._errors = RepeatedErrors(f"The Kafka consumer of {spec.name!r} (group {spec.group_id!r})")
        self._wait_seconds = FIRST_WAIT_SECONDS
        # The creation time that each key was given last.
        self._newest: dict[str, int] = {}
        self.dropped = 0
        # Whether the database has not taken the current batch yet.
        self._waiting = False

    # --- life

    def open(self) -> None:
        kafka = client_library()
        user_callback = self._spec.config.get("error_cb")

        def handle(error: Any) -> None:
            self._errors.report(error.code(), error)
            if user_callback is not None:
                try:
                    user_callback(error)
                except Exception:
                    logger.exception("The error_cb of the Kafka consumer of %r failed", self._spec.name)

        try:
            self._client = kafka.Consumer({**self._spec.config, "error_cb": handle})
            self._client.subscribe(
                list(self._spec.topics), on_assign=self._forget, on_revoke=self._forget, on_lost=self._forget
            )
        except (kafka.KafkaException, TypeError, ValueError) as error:
            self._close(self._take_client())
            raise DBOSInitializationError(
                f"The Kafka consumer of {self._spec.name!r} cannot be made: {error}. Check its config and topics."
            ) from error

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="dbos-kafka", daemon=True)
        self._thread.start()

    def signal_stop(self) -> None:
        self._stopping.set()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        self._stopping.set()
        if self._thread is None:
            self._close(self._take_client())
            return
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            frame = sys._current_frames().get(self._thread.ident or 0)
            logger.warning(
                "The Kafka consumer of %r did not stop within %g s. It is at:\n%s",
                self._spec.name,
                timeout_seconds,
                "".join(traceback.format_stack(frame, limit=-4)) if frame is not None else "its end",
            )

    def _take_client(self) -> Any:
        """The client, which is the consumer's no longer."""
        client, self._client = self._client, None
        self._newest.clear()
        return client

    def _close(self, client: Any) -> None:
        if client is not None:
            # Commits the offsets that were stored.
            client.close()

    def _forget(self, client: Any, _partitions: Any) -> None:
        # Meanwhile others may have enqueued messages of the same keys: ask the database again.
        if client is self._client:
            self._newest.clear()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._client is None:
                    self.open()
                self._consume()
            except EngineStopped:
                break
            except Exception as error:
                if self._stopping.is_set():
                    break
                logger.exception(
                    "The Kafka consumer of %r is made anew in %g s: %s", self._spec.name, self._wait_seconds, error
                )
                self._close_in_time()
                self._stopping.wait(self._wait_seconds)
                self._wait_seconds = min(self._wait_seconds * 2, LONGEST_WAIT_SECONDS)
        self._close_quietly(self._take_client())

    def _close_in_time(self) -> None:
        """Close a broken client, or leave it behind.

        The client library can hang there for ever: librdkafka waits for its own threads, and those for references to
        a broker of which one was lost. By then it has left the group.
        """
        closing = threading.Thread(
            target=self._close_quietly, args=(self._take_client(),), name="dbos-kafka-close", daemon=True
        )
        closing.start()
        closing.join(LONGEST_CLOSE_SECONDS)
        if closing.is_alive():
            logger.warning(
                "The client of the Kafka consumer of %r has not closed within %g s and is left behind",
                self._spec.name,
                LONGEST_CLOSE_SECONDS,
            )

    def _close_quietly(self, client: Any) -> None:
        try:
            self._close(client)
        except Exception:
            logger.exception("The Kafka consumer of %r was not closed properly; offsets may be old", self._spec.name)

    # --- messages

    def _consume(self) -> None:
        """Handle one batch after the other, until told to stop."""
        client, size = self._client, self._spec.batch_size
        while not self._stopping.is_set():
            # The first one as soon as it comes, and whatever else is there then.
            messages = client.consume(1, POLL_SECONDS)
            if messages and size > 1:
                messages += client.consume(size - 1, 0)
            if messages:
                self._handle(messages)
            self._wait_seconds = FIRST_WAIT_SECONDS

    def _handle(self, messages: Sequence[Any]) -> None:
        end_of_partition = client_library().KafkaError._PARTITION_EOF
        good: list[Any] = []
        fatal: Any = None
        for message in messages:
            error = message.error()
            if error is None:
                good.append(message)
                continue
            if error.code() == end_of_partition:
                # An answer to enable.partition.eof, which nobody here asks for.
                continue
            self._errors.report(error.code(), error)
            if error.fatal():
                fatal = error
        if good:
            self._enqueue(good)
            self._store_offsets(good)
        if fatal is not None:
            raise client_library().KafkaException(fatal)

    def _enqueue(self, messages: Sequence[Any]) -> None:
        """Write the workflows of a batch, however often it takes."""
        spec, engine = self._spec, self._engine
        enqueues: list[Enqueue] = []
        times = self._creation_times(messages)
        for message, created_at_ms in zip(messages, times):
            try:
                enqueues.append(self._build(message, created_at_ms))
            except Exception as error:
                self._drop(f"{message.topic()}[{message.partition()}] offset {message.offset()}", error)
        while True:
            try:
                # Without workflows that were there: those are redelivered messages.
                answers = self._ask(lambda store: store.enqueue_workflows(enqueues), "enqueue its messages")
                break
            except BulkRefused as error:
                self._drop(enqueues.pop(error.index).record.workflow_id, error)
        new = [enqueue.record for index, enqueue in enumerate(enqueues) if index not in answers]
        if len(new) < len(enqueues):
            logger.debug("%d messages for %r had come before", len(enqueues) - len(new), spec.name)
        note_enqueued(engine, new)

    def _build(self, message: Any, created_at_ms: int) -> Enqueue:
        spec = self._spec
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        received = KafkaMessage(
            headers=message.headers(),
            key=message.key(),
            latency=message.latency(),
            leader_epoch=message.leader_epoch(),
            offset=offset,
            partition=partition,
            timestamp=message.timestamp(),
            topic=topic,
            value=message.value(),
        )
        options = Options(queue_partition_key=spec.partition_key(topic, partition))
        make_record = record_of_target(self._engine, spec.queue_name, spec.make_target(received), options)
        record = make_record(f"kafka-unique-id-{topic}-{partition}-{spec.group_id}-{offset}", Context(), None)
        record.created_at_ms = created_at_ms
        return Enqueue(record, "skip")

    def _creation_times(self, messages: Sequence[Any]) -> list[int]:
        """When each workflow counts as created: growing within a key, also over restarts and hand-overs."""
        now_ms = self._engine.clock.now_ms()
        keys = [self._spec.partition_key(message.topic(), message.partition()) for message in messages]
        unknown = sorted({key for key in keys if key is not None and key not in self._newest})
        if unknown:
            queue_name = self._spec.queue_name
            found = self._ask(
                lambda store: store.find_newest_waiting(queue_name, unknown), "find the end of its partitions"
            )
            self._newest.update((key, found.get(key, 0)) for key in unknown)
        times: list[int] = []
        for key in keys:
            at_ms = now_ms
            if key is not None:
                at_ms = self._newest[key] = max(now_ms, self._newest[key] + 1)
            times.append(at_ms)
        return times

    def _drop(self, what: str, error: Exception) -> None:
        self.dropped += 1
        logger.error(
            "The Kafka message %s cannot become a workflow of %r and is passed over (%d so far): %s",
            what,
            self._spec.name,
            self.dropped,
            error,
            exc_info=error,
        )

    def _store_offsets(self, messages: Sequence[Any]) -> None:
        """Let the client commit what is enqueued; it does so in the background, and when it is closed."""
        kafka = client_library()
        highest: dict[tuple[str, int], int] = {}
        for message in messages:
            place = (message.topic(), message.partition())
            highest[place] = max(highest.get(place, 0), message.offset() + 1)
        try:
            self._client.store_offsets(
                offsets=[kafka.TopicPartition(topic, number, offset) for (topic, number), offset in highest.items()]
            )
        except kafka.KafkaException as error:
            logger.warning(
                "The Kafka consumer of %r could not store offsets, so messages may come again: %s",
                self._spec.name,
                error,
            )

    def _ask(self, query: Callable[[Store], T], what: str) -> T:
        """Ask the store until it answers. Nothing is consumed meanwhile."""
        wait_seconds = FIRST_WAIT_SECONDS
        while True:
            try:
                return query(self._engine.store)
            except BulkRefused:
                raise
            except Exception as error:
                if self._stopping.is_set():
                    raise EngineStopped() from error
                logger.warning(
                    "The Kafka consumer of %r could not %s, next try in %g s: %s",
                    self._spec.name,
                    what,
                    wait_seconds,
                    error,
                )
                self._waiting = True
                if self._stopping.wait(wait_seconds):
                    raise EngineStopped() from error
                self._waiting = False
                wait_seconds = min(wait_seconds * 2, LONGEST_WAIT_SECONDS)
