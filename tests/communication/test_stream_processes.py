"""Streams between processes: values arrive by signals, one look serves all readers, a dead writer is waited for."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest

from dbos import DBOS
from dbos.error import DBOSStreamTimeoutError
from tests.communication.streaming import count_reads, waiting_readers
from tests.helpers import wait_until

WORKER = Path(__file__).with_name("stream_worker.py")


@pytest.fixture
def writer(app: type[DBOS], database_url: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, str(WORKER), database_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def test_a_value_arrives_from_another_process_within_milliseconds(
    app: type[DBOS], writer: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """04 R801, R812: woken by a signal; a poll would take an hour here. Twenty readers share the looks."""
    asked = count_reads(monkeypatch, app)
    values, readers = 30, 20

    delays: list[float] = []

    def read() -> None:
        for written_at in DBOS.read_stream("w", "k", polling_interval_sec=3600):
            delays.append(time.time() - written_at)

    with ThreadPoolExecutor(readers) as threads:
        futures = [threads.submit(read) for _ in range(readers)]
        for number in range(values):
            wait_until(lambda: len(delays) == number * readers and waiting_readers(app) == readers)
            say(writer, "write")
        wait_until(lambda: len(delays) == values * readers)
        assert writer.stdin is not None
        writer.stdin.close()
        for future in futures:
            future.result()
    found = median(delays)
    print(f"median {found * 1000:.2f} ms, {len(asked)} looks")
    assert found < 0.1
    # A look for each value and some that came too early; not one for each reader.
    assert len(asked) < values * readers / 3


def test_the_stream_of_a_writer_that_died_is_waited_for(app: type[DBOS], writer: subprocess.Popen[str]) -> None:
    """04 R310: its workflow has not ended."""
    say(writer, "write")
    reader = DBOS.read_stream("w", "k", timeout_seconds=0.2)
    next(reader)
    say(writer, "die")
    writer.wait()
    with pytest.raises(DBOSStreamTimeoutError):
        next(reader)
