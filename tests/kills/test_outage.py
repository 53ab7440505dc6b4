"""The database goes away under running workflows and comes back: they continue by themselves."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dbos.embedded_postgres import EmbeddedPostgres
from dbos.temporary import temporary_server
from tests.databases import fresh_postgres_url, fresh_sqlite_url, path_of
from tests.kills.processes import PATIENCE_SECONDS, Observer, SideLog, Worker

ORDERS = 20
ROUNDS = 60
# Bodies executed between two outages: enough to be in the middle of things, few enough to be far from the end.
PROGRESS = 100


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A Postgres server that nobody else minds being cut off."""
    with temporary_server("dbos-test-outage-") as server:
        yield server


class Load:
    """Long orders, sync and async, running in one worker process."""

    def __init__(self, worker: Worker, url: str, log: SideLog) -> None:
        self._worker = worker
        self._log = log
        self.observer = Observer(url)
        worker.command("run", first=0, count=ORDERS, rounds=ROUNDS)
        worker.expect("launched")
        worker.expect("started")

    def wait_for_progress(self) -> None:
        """Return when many further steps have been executed; some workflows must still be running then."""
        target = len(self._log.executions()) + PROGRESS
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self._log.executions()) < target:
            assert time.monotonic() < deadline, "the workflows do not continue"
            time.sleep(0.01)
        assert self.observer.unfinished() > 0, "the load was over before the outage"

    def check_results(self) -> None:
        """Every outcome is right, and every step body was executed exactly once: no process died here."""
        outcomes = self._worker.next_message()
        self._worker.wait()
        assert outcomes == {
            f"long-{number}": ["SUCCESS", number + sum(range(ROUNDS)) + 2 * number] for number in range(ORDERS)
        }
        assert set(self.observer.statuses().values()) == {"SUCCESS"}
        executed = [step for _, step in self._log.executions()]
        assert {pid for pid, _ in self._log.executions()} == {self._worker.pid}, "somebody took it for dead"
        assert len(executed) == len(set(executed)), "a step body was executed twice"
        assert len(executed) == ORDERS * (ROUNDS + 2)
        assert set(executed) <= self.observer.recorded()


def neighbour(url: str, log: SideLog) -> Worker:
    """Another process, which has nothing to do but could take over what the first one is executing."""
    worker = Worker(url, log, executor="neighbour")
    worker.command("load", first=0, count=0)
    worker.expect("launched")
    return worker


def test_workflows_continue_when_postgres_was_cut_off_three_times(own_server: EmbeddedPostgres, tmp_path: Path) -> None:
    url, log = own_server.url("outage"), SideLog(tmp_path / "side.log")
    with Worker(url, log) as worker, neighbour(url, log):
        load = Load(worker, url, log)
        for _ in range(3):
            load.wait_for_progress()
            own_server.restart_immediately()
        load.check_results()


def test_workflows_continue_when_their_connections_are_terminated(tmp_path: Path) -> None:
    url, log = fresh_postgres_url(), SideLog(tmp_path / "side.log")
    with Worker(url, log) as worker, neighbour(url, log):
        load = Load(worker, url, log)
        for _ in range(5):
            load.wait_for_progress()
            with psycopg.connect(url, autocommit=True) as connection:
                terminated = connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                ).fetchall()
            assert terminated, "there was no connection to terminate"
        load.check_results()


def test_workflows_continue_when_another_process_held_the_sqlite_lock(tmp_path: Path) -> None:
    url, log = fresh_sqlite_url(tmp_path), SideLog(tmp_path / "side.log")
    with Worker(url, log, lock_wait_seconds=0.05) as worker:
        load = Load(worker, url, log)
        for _ in range(3):
            load.wait_for_progress()
            holder = sqlite3.connect(path_of(url), timeout=60, isolation_level=None)
            holder.execute("BEGIN IMMEDIATE")
            executed = set(log.executions())
            # Longer than the worker's patience with a lock, so its commits fail and have to be repeated.
            time.sleep(1.0)
            # What runs on now has no record yet: one body per workflow that is under way, at most.
            assert len(set(log.executions()) - executed) <= 2 * ORDERS
            holder.execute("COMMIT")
            holder.close()
        load.check_results()
    assert "database is locked" in log.path.with_suffix(".stderr").read_text()
