"""A campaign of kills on one database: workers killed at random moments, then everything checked."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from tests.kills.processes import Observer, SideLog, Worker

ORDERS_PER_KILL = 24


def expected_outcome(number: int) -> list[Any]:
    """What `order` and `order_async` come to."""
    total = (number + 1) + 2 * number + 1 + 2 * (number + 1)
    if number % 7 == 0:
        return ["ERROR", "ValueError", f"no order {number}, total {total}"]
    return ["SUCCESS", total]


class Campaign:
    """Kill, look, restart; `finish` runs what is left to its end and checks every outcome.

    Args:
        url: An empty database.
        directory: Where the side log goes.
        seed: Chooses the moments of the kills.
    """

    def __init__(self, url: str, directory: Path, seed: int) -> None:
        self._url = url
        self._log = SideLog(directory / f"side-{seed}.log")
        self._observer = Observer(url)
        self._random = random.Random(seed)
        self._spare = Worker(url, self._log)
        self._recorded: set[tuple[str, int]] = set()
        self._checked = 0
        self._next_number = 0
        self.kills = 0
        self.caught = 0
        self.orders = 0

    @property
    def executions(self) -> int:
        return len(self._log.executions())

    def kill_once(self) -> None:
        """Let a worker launch, recover and start orders; kill it at a random moment; look at what it left."""
        worker = self._next_worker()
        with worker:
            worker.command("load", first=self._next_number, count=ORDERS_PER_KILL)
            self._next_number += ORDERS_PER_KILL
            # One in five dies in its launch, the others under load.
            if self._random.random() >= 0.2:
                worker.expect("launched")
            time.sleep(self._random.uniform(0.0, 0.12))
        self.kills += 1
        self._check_executions()
        if self._observer.has_tables():
            self._recorded = self._observer.recorded()
            self.caught += self._observer.unfinished() > 0

    def finish(self) -> None:
        """Run everything to its end; no workflow is lost and every outcome is right."""
        started = self._log.started()
        statuses = self._observer.statuses()
        assert started <= statuses.keys(), f"lost: {sorted(started - statuses.keys())}"
        orders = sorted(workflow_id for workflow_id in statuses if workflow_id.count("-") == 1)
        with self._next_worker() as worker:
            worker.command("finish", ids=orders)
            worker.expect("launched")
            outcomes = worker.next_message()
            worker.wait()
        self._check_executions()
        wrong = {
            workflow_id: (outcome, expected_outcome(int(workflow_id.split("-")[1])))
            for workflow_id, outcome in outcomes.items()
            if outcome != expected_outcome(int(workflow_id.split("-")[1]))
        }
        assert not wrong, f"wrong outcomes: {wrong}"
        assert list(outcomes) == orders
        self._check_rows(orders)
        self.orders = len(orders)

    def close(self) -> None:
        self._spare.kill()

    def _next_worker(self) -> Worker:
        worker = self._spare
        self._spare = Worker(self._url, self._log)
        return worker

    def _check_executions(self) -> None:
        """No body of a step that was recorded at the last kill has been executed since."""
        executions = self._log.executions()
        again = [(pid, step) for pid, step in executions[self._checked :] if step in self._recorded]
        assert not again, f"recorded steps executed again: {again}"
        by_process = executions[self._checked :]
        assert len(by_process) == len(set(by_process)), "one process executed a step twice"
        self._checked = len(executions)

    def _check_rows(self, orders: list[str]) -> None:
        """Each order has its two children and its nine rows, and nothing is left to do."""
        statuses = self._observer.statuses()
        assert set(statuses) == {
            name for workflow_id in orders for name in (workflow_id, f"{workflow_id}-3", f"{workflow_id}-4")
        }
        assert self._observer.unfinished() == 0, statuses
        recorded = self._observer.recorded()
        children = [name for name in statuses if name not in orders]
        assert recorded == {(workflow_id, step) for workflow_id in orders for step in range(1, 10)} | {
            (workflow_id, 1) for workflow_id in children
        }
        executed = {step for _, step in self._log.executions()}
        bodies = {(workflow_id, step) for workflow_id in orders for step in (1, 6, 7, 8)}
        assert executed == bodies | {(workflow_id, 1) for workflow_id in children}
