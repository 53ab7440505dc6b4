"""A Kafka cluster for tests: the mock brokers that are built into librdkafka, in this process, over real sockets."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable
from importlib.metadata import distribution
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

PARTITIONS = 3
_PATIENCE_SECONDS = 20
_HEARTBEAT_INTERVAL_MS = 100

# Members of groups join, are told their partitions and leave by heartbeats (KIP-848): at once, and whoever misses his
# session just joins again. With the other protocol the mock brokers wait for further members of a group that is not
# new, for the session less a second, and a process that stands still meanwhile hangs: if a member's session ends before
# its JoinGroup was answered, it is forgotten together with the request, and no answer ever comes.
CONSUMER_PROTOCOL = {"group.protocol": "consumer"}
# So here that wait is a millisecond.
CLASSIC_PROTOCOL = {"group.protocol": "classic", "session.timeout.ms": 1001, "heartbeat.interval.ms": 100}


class MockCluster:
    """One broker.

    Made with librdkafka's C functions, since only these let a group be complete at once, where a cluster made by the
    producer option `test.mock.num.brokers` waits three seconds for further members, and make the broker fail.

    `session_timeout_ms` is how long a silent member keeps its partitions, with the consumer protocol; by default longer
    than any machine stands still.
    """

    def __init__(self, session_timeout_ms: int = 15_000) -> None:
        self._library = library = ctypes.CDLL(_library_path())
        for name, result, arguments in (
            ("rd_kafka_conf_new", ctypes.c_void_p, []),
            ("rd_kafka_conf_set", ctypes.c_int, [ctypes.c_void_p, *[ctypes.c_char_p] * 3, ctypes.c_size_t]),
            ("rd_kafka_new", ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]),
            ("rd_kafka_destroy", None, [ctypes.c_void_p]),
            ("rd_kafka_mock_cluster_new", ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int]),
            ("rd_kafka_mock_cluster_destroy", None, [ctypes.c_void_p]),
            ("rd_kafka_mock_cluster_bootstraps", ctypes.c_char_p, [ctypes.c_void_p]),
            ("rd_kafka_mock_group_initial_rebalance_delay_ms", None, [ctypes.c_void_p, ctypes.c_int32]),
            ("rd_kafka_mock_set_group_consumer_heartbeat_interval_ms", None, [ctypes.c_void_p, ctypes.c_int32]),
            ("rd_kafka_mock_set_group_consumer_session_timeout_ms", None, [ctypes.c_void_p, ctypes.c_int32]),
            (
                "rd_kafka_mock_topic_create",
                ctypes.c_int,
                [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int],
            ),
            ("rd_kafka_mock_broker_set_down", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
            ("rd_kafka_mock_broker_set_up", ctypes.c_int, [ctypes.c_void_p, ctypes.c_int32]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        problem = ctypes.create_string_buffer(512)
        configuration = library.rd_kafka_conf_new()
        # Its own log says that it has no other servers.
        assert library.rd_kafka_conf_set(configuration, b"log_level", b"0", problem, len(problem)) == 0
        self._client = library.rd_kafka_new(0, configuration, problem, len(problem))
        assert self._client, problem.value
        self._cluster = library.rd_kafka_mock_cluster_new(self._client, 1)
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
        library.rd_kafka_mock_set_group_consumer_heartbeat_interval_ms(self._cluster, _HEARTBEAT_INTERVAL_MS)
        library.rd_kafka_mock_set_group_consumer_session_timeout_ms(self._cluster, session_timeout_ms)
        self.servers: str = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self._producer: Any = Producer({"bootstrap.servers": self.servers, "log_level": 0})

    def create_topic(self, name: str) -> None:
        assert self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), PARTITIONS, 1) == 0

    def produce(self, topic: str, values: Iterable[bytes], *, partition: int = 0, **message: Any) -> None:
        """Send messages and wait until the broker has them."""
        for value in values:
            self._producer.produce(topic, value, partition=partition, **message)
        assert self._producer.flush(_PATIENCE_SECONDS) == 0

    def committed(self, group: str, topic: str, partition: int = 0) -> int:
        """The offset from which a new member of the group would go on; negative when there is none."""
        consumer: Any = Consumer({"bootstrap.servers": self.servers, "group.id": group, "log_level": 0})
        try:
            (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=_PATIENCE_SECONDS)
            offset: int = found.offset
            return offset
        finally:
            consumer.close()

    def set_down(self) -> None:
        assert self._library.rd_kafka_mock_broker_set_down(self._cluster, 1) == 0

    def set_up(self) -> None:
        assert self._library.rd_kafka_mock_broker_set_up(self._cluster, 1) == 0

    def close(self) -> None:
        self._producer = None
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)


def _library_path() -> str:
    """The librdkafka that the package confluent-kafka brings along."""
    package = distribution("confluent-kafka")
    (found,) = [file for file in package.files or () if re.match(r"librdkafka.*\.(so|dylib|dll)", file.name)]
    return str(package.locate_file(found))
