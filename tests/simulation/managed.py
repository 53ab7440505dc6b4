"""A world in which somebody cancels, resumes, forks, rewinds and deletes at random, whatever state things are in."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSException
from dbos.records import Record

from .faults import Faults
from .process import Process
from .world import Result, Root, Scenario, World

CALLS = 30
# How long the operator waits between two calls, at most; some come at once.
LONGEST_PAUSE_SECONDS = 3.0
# Results by name of the function.
VALUES = {"steady": 30, "steady_async": 30, "mother": 60}


def define(version: int) -> dict[str, Callable[..., Any]]:
    @DBOS.workflow(name="steady")
    def steady() -> int:
        total = 0
        for number in (3, 7, 20):
            total = DBOS.run_step({"name": "add"}, lambda n=number, t=total: n + t)
            DBOS.sleep(0.5)
        return total

    @DBOS.step(name="add_async", preemptible=True)
    async def add(left: int, right: int) -> int:
        return left + right

    @DBOS.workflow(name="steady_async")
    async def steady_async() -> int:
        total = 0
        for number in (3, 7, 20):
            total = await add(number, total)
            await DBOS.sleep_async(0.5)
        return total

    @DBOS.workflow(name="mother")
    def mother() -> int:
        first, second = DBOS.start_workflow(steady), DBOS.start_workflow(steady)
        return first.get_result() + second.get_result()

    return {"steady": steady, "steady_async": steady_async, "mother": mother}


ROOTS = [
    Root("steady", "s", in_background=True),
    Root("steady", "t"),
    Root("steady_async", "a", in_background=True),
    Root("steady_async", "b"),
    Root("mother", "m", in_background=True),
    Root("mother", "n"),
]
SCENARIO = Scenario("managed", define, ROOTS, {}, resumes=1000)


class ManagedWorld(World):
    """Whoever manages does so in the first process, and in each one that takes its place, until all calls are made.

    What must hold is watched where it happens: by the triggers of the database and by `FaultyStore`.
    """

    def __init__(self, faults: Faults, *, seed: int) -> None:
        super().__init__(SCENARIO, faults, seed=seed)
        self.made: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._operator = random.Random(f"operator {seed}")
        self._forks = 0

    def _launch(self, executor_id: str = "simulated") -> Process:
        process = super()._launch(executor_id)
        process.clients.append(process.spawn(lambda: self._manage(process)))
        return process

    def _manage(self, process: Process) -> None:
        rng = self._operator
        while sum(self.made.values()) + sum(self.refused.values()) < CALLS:
            process.nap(rng.choice((0.0, rng.uniform(0.0, LONGEST_PAUSE_SECONDS))))
            ids = [row[0] for row in self.database.rows("SELECT workflow_uuid FROM workflow_status ORDER BY 1")]
            some = rng.sample([*ids, "no such workflow"], min(len(ids), rng.randint(1, 3)))
            if not ids:
                # Everything is deleted.
                return
            name, call = rng.choice(self._calls_for(rng, some))
            try:
                call()
                self.made[name] += 1
            except (DBOSException, ValueError):
                self.refused[name] += 1

    def _calls_for(self, rng: random.Random, some: list[str]) -> list[tuple[str, Callable[[], Any]]]:
        one, whole = some[0], rng.random() < 0.5
        cut = rng.randint(1, 7)
        return [
            ("cancel", lambda: DBOS.cancel_workflows(some, cancel_children=whole)),
            ("resume", lambda: DBOS.resume_workflows(some)),
            ("fork", lambda: self._fork(one, cut)),
            ("rewind", lambda: DBOS.rewind_workflow(one, start_step=cut)),
            ("delete", lambda: DBOS.delete_workflows([one], delete_children=whole)),
            ("attributes", lambda: DBOS.update_workflow_attributes(one, {"cut": cut}, merge=whole)),
        ]

    def _fork(self, workflow_id: str, cut: int) -> None:
        self._forks += 1
        # The name is that of the function, by which the result is judged.
        with SetWorkflowID(f"fork {self._forks}"):
            DBOS.fork_workflow(workflow_id, cut)

    def _is_durable(self, record: Record) -> bool:
        # It was when it was committed; it may be rewound or deleted since.
        return True

    def _collect(self) -> Result:
        result = super()._collect()
        for workflow_id, name, status in self.database.rows("SELECT workflow_uuid, name, status FROM workflow_status"):
            if status not in ("SUCCESS", "ERROR", "CANCELLED"):
                result.violations.append(f"{workflow_id} is {status} in the end")
            if status == "SUCCESS":
                output = self._processes[0].engine.payloads.decode_value(result.outcomes[workflow_id][0], "py_pickle")
                if output != VALUES[name]:
                    result.violations.append(f"{workflow_id} has the result {output}, not {VALUES[name]}")
        return result
