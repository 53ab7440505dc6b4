"""Worker processes, their side log, and their database seen from outside."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from tests.databases import path_of

WORKER = Path(__file__).with_name("worker.py")
# Far longer than anything takes on a busy machine; reached only when something hangs.
PATIENCE_SECONDS = 60.0

Step = tuple[str, int]


class SideLog:
    """What the step bodies noted, whatever became of their process and their database."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self) -> list[tuple[int, str, str]]:
        """(process id, "started" or workflow id, workflow id or step id) in order."""
        rows = [line.split() for line in self.path.read_text().splitlines()]
        return [(int(pid), what, which) for pid, what, which in rows]

    def started(self) -> set[str]:
        """The workflows whose start had been reported to the application."""
        return {which for _, what, which in self.lines() if what == "started"}

    def wait_until_started(self, workflow_ids: Iterable[str]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while missing := set(workflow_ids) - self.started():
            assert time.monotonic() < deadline, f"not started: {sorted(missing)}"
            time.sleep(0.01)

    def executions(self) -> list[tuple[int, Step]]:
        """(process id, step) for each execution of a step body, in order."""
        return [(pid, (what, int(which))) for pid, what, which in self.lines() if what != "started"]


class Worker:
    """A process of `worker.py`, or another program; killed when the block ends, if it has not ended by itself."""

    def __init__(
        self,
        url: str,
        log: SideLog,
        *,
        executor: str = "worker",
        lock_wait_seconds: float = 30,
        program: Path = WORKER,
    ) -> None:
        self._errors = log.path.with_suffix(".stderr")
        with self._errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(program), url, str(log.path), executor, str(lock_wait_seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.pid = self.process.pid

    def command(self, action: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        self.expect("ready")
        self.process.stdin.write(json.dumps({"action": action, **arguments}) + "\n")
        self.process.stdin.flush()

    def next_message(self) -> Any:
        """The next line of the process, decoded."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(PATIENCE_SECONDS, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        assert line, f"the worker ended or hung; its log ends with:\n{self._errors.read_text()[-3000:]}"
        return json.loads(line)

    def expect(self, message: str) -> None:
        assert self.next_message() == message

    def wait_until_paused(self) -> None:
        """Wait until the process has stopped itself with SIGSTOP."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status), f"the worker ended: {self._errors.read_text()[-3000:]}"

    def wait_for_log(self, text: str) -> None:
        """Wait until a worker on this side log has logged the text."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while text not in self._errors.read_text():
            assert time.monotonic() < deadline, f"{text!r} was not logged"
            time.sleep(0.01)

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def wait(self) -> None:
        """Wait for the end of a process that ends by itself."""
        assert self.process.wait(PATIENCE_SECONDS) == 0, self._errors.read_text()[-3000:]

    def kill(self) -> None:
        """SIGKILL, as a power cut would end it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Observer:
    """The system database as another program sees it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_sqlite = url.startswith("sqlite")

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a query in which `{}` stands before each table name."""
        with self._connection() as connection:
            return list(connection.execute(sql.format("" if self._is_sqlite else "dbos.")).fetchall())

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        connection: Any
        if self._is_sqlite:
            connection = sqlite3.connect(path_of(self._url), timeout=60)
        else:
            connection = psycopg.connect(self._url, autocommit=True)
        try:
            yield connection
        finally:
            connection.close()

    def has_tables(self) -> bool:
        if self._is_sqlite:
            sql = "SELECT 1 FROM sqlite_master WHERE name = 'operation_outputs'"
        else:
            sql = "SELECT 1 FROM pg_tables WHERE schemaname = 'dbos' AND tablename = 'operation_outputs'"
        return bool(self.query(sql))

    def recorded(self) -> set[Step]:
        """The steps that have a row."""
        rows = self.query("SELECT workflow_uuid, function_id FROM {}operation_outputs")
        return {(row[0], row[1]) for row in rows}

    def statuses(self) -> dict[str, str]:
        return dict(self.query("SELECT workflow_uuid, status FROM {}workflow_status"))

    def unfinished(self) -> int:
        return sum(status in ("PENDING", "ENQUEUED") for status in self.statuses().values())
