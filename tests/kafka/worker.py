"""A process that consumes: `python worker.py <database_url> <servers> <group> <topic> <executor id>`, until killed."""

from __future__ import annotations

import sys

from dbos import DBOS, KafkaMessage


def main() -> None:
    database_url, servers, group, topic, executor_id = sys.argv[1:]
    DBOS(
        config={
            "name": "test-app",
            "system_database_url": database_url,
            "executor_id": executor_id,
            "application_version": "v1",
            "log_level": "ERROR",
        }
    )

    @DBOS.step(name="note")
    def note(value: str) -> str:
        return value

    @DBOS.kafka_consumer(
        {
            "bootstrap.servers": servers,
            "group.id": group,
            "group.protocol": "consumer",
            # Longer than it lives: whoever is killed has committed nothing, and all comes again.
            "auto.commit.interval.ms": 600_000,
            "log_level": 0,
        },
        [topic],
        ordering="partition",
        batch_size=10,
    )
    @DBOS.workflow(name="on_message")
    def on_message(message: KafkaMessage) -> str:
        assert isinstance(message.value, bytes)
        return note(message.value.decode())

    DBOS.launch()
    print("ready", flush=True)
    sys.stdin.read()
    DBOS.destroy()


if __name__ == "__main__":
    main()
