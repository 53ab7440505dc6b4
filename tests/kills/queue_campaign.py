"""Workers on one queue, killed one after the other and never started again under their executor ids."""

from __future__ import annotations

import itertools
import json
import random
import time
from pathlib import Path

from tests.kills.processes import PATIENCE_SECONDS, Observer, SideLog, Step, Worker

PROGRAM = Path(__file__).with_name("queue_worker.py")
WORKERS = 4
FEWEST_KILLS = 3
CONCURRENCY = 32


class QueueCampaign:
    """`WORKERS` processes work a queue off while one after the other is killed; each gets a successor with a new id.

    Args:
        url: An empty database.
        directory: Where the side log goes.
        seed: Chooses who is killed, and when.
        jobs: How many workflows wait on the queue in the beginning.
        pause_seconds: The shortest and the longest time between two kills.
    """

    def __init__(
        self, url: str, directory: Path, seed: int, jobs: int, pause_seconds: tuple[float, float] = (0.3, 0.8)
    ) -> None:
        self._url = url
        self._log = SideLog(directory / f"queue-{seed}.log")
        self._observer = Observer(url)
        self._random = random.Random(seed)
        self._jobs = jobs
        self._pause_seconds = pause_seconds
        self._ids = itertools.count(1)
        self._workers: list[tuple[str, Worker]] = []
        self._recorded: set[Step] = set()
        self._checked = 0
        self.kills = 0
        self.seconds = 0.0
        # How long after each kill the workflows of the killed one took to be free again.
        self.free_after_seconds: list[float] = []
        self.taken_over = 0

    def run(self) -> None:
        """Fill the queue, kill until everything is finished, check every outcome."""
        with self._make_worker("fill") as filler:
            filler.command("fill", count=self._jobs, concurrency=CONCURRENCY)
            filler.expect("launched")
            filler.expect("filled")
            filler.wait()
        began = time.monotonic()
        try:
            for _ in range(WORKERS):
                self._add_worker()
            while self._wait_for_the_next_kill():
                self._kill_one()
        finally:
            for _, worker in self._workers:
                worker.kill()
        self.seconds = time.monotonic() - began
        self._check()

    def _make_worker(self, executor: str) -> Worker:
        return Worker(self._url, self._log, executor=executor, program=PROGRAM)

    def _add_worker(self) -> None:
        executor = f"executor-{next(self._ids)}"
        worker = self._make_worker(executor)
        self._workers.append((executor, worker))
        worker.command("work")

    def _wait_for_the_next_kill(self) -> bool:
        """False when nothing is left to do. However fast the machine is, some kills come while there is."""
        kill_at = time.monotonic() + self._random.uniform(*self._pause_seconds)
        kill_when_finished = self._jobs * (self.kills + 1) // (FEWEST_KILLS + 1)
        while self._unfinished():
            if time.monotonic() >= kill_at or self._finished() >= kill_when_finished:
                return True
            time.sleep(0.05)
        return False

    def _finished(self) -> int:
        count: int = self._observer.query("SELECT COUNT(*) FROM {}workflow_status WHERE status = 'SUCCESS'")[0][0]
        return count

    def _unfinished(self) -> bool:
        return bool(
            self._observer.query(
                "SELECT 1 FROM {}workflow_status WHERE status = 'ENQUEUED' LIMIT 1",
            )
            or self._observer.query("SELECT 1 FROM {}workflow_status WHERE status = 'PENDING' LIMIT 1")
        )

    def _kill_one(self) -> None:
        # Somebody in the middle of work, if there is anybody: the others may just have been started.
        share = CONCURRENCY // WORKERS // 2
        busy = [entry for entry in self._workers if self._owned_by(entry[0]) >= share]
        executor, worker = self._random.choice(busy or self._workers)
        self._workers.remove((executor, worker))
        worker.kill()
        killed_at = time.monotonic()
        self.kills += 1
        owned = self._owned_by(executor)
        while self._owned_by(executor):
            assert time.monotonic() < killed_at + PATIENCE_SECONDS, f"the work of {executor} was not taken over"
            time.sleep(0.005)
        if owned:
            self.taken_over += owned
            self.free_after_seconds.append(time.monotonic() - killed_at)
        self._check_executions()
        self._add_worker()

    def _owned_by(self, executor: str) -> int:
        count: int = self._observer.query(
            f"SELECT COUNT(*) FROM {{}}workflow_status WHERE status = 'PENDING' AND executor_id = '{executor}'"
        )[0][0]
        return count

    def _check_executions(self) -> None:
        """No body of a step that was recorded at the kill before has been executed since then."""
        # In this order: the others work on, and what they execute and record meanwhile must not look like a repetition.
        recorded = self._observer.recorded()
        executions = self._log.executions()
        again = [(pid, step) for pid, step in executions[self._checked :] if step in self._recorded]
        assert not again, f"recorded steps executed again: {again}"
        assert len(executions) == len(set(executions)), "one process executed a step twice"
        self._recorded, self._checked = recorded, len(executions)

    def _check(self) -> None:
        """Every job is finished with its result, and each of its two steps is recorded once."""
        self._check_executions()
        jobs = {f"job-{number}" for number in range(self._jobs)}
        statuses = self._observer.statuses()
        assert statuses == dict.fromkeys(jobs, "SUCCESS"), [one for one in statuses.items() if one[1] != "SUCCESS"]
        steps = self._observer.query("SELECT workflow_uuid, function_id FROM {}operation_outputs")
        assert sorted(steps) == sorted((job, step) for job in jobs for step in (1, 2))
        assert {step for _, step in self._log.executions()} == set(steps)
        self._check_results()

    def _check_results(self) -> None:
        with self._make_worker("reader") as reader:
            reader.command("read", count=self._jobs)
            reader.expect("launched")
            results = reader.next_message()
            reader.wait()
        assert results == [2 * number + 1 for number in range(self._jobs)], "wrong results"

    def report(self) -> str:
        free = sorted(self.free_after_seconds)
        attempts = len(self._log.executions()) - 2 * self._jobs
        figures = {
            "jobs": self._jobs,
            "kills": self.kills,
            "taken over": self.taken_over,
            "step bodies run again": attempts,
            "seconds": round(self.seconds, 1),
            "free after, median s": round(free[len(free) // 2], 3) if free else None,
            "free after, longest s": round(free[-1], 3) if free else None,
        }
        return json.dumps(figures)
