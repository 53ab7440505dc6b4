"""A paused process is taken for dead: two executions of one workflow, and still exactly one outcome.

The first process freezes at a random point, a second one recovers its workflows and goes on, then the first one wakes
up. It owns nothing any more: it stops at its next write, writes nothing, and its callers get the outcome that the
second has recorded. (`World` checks every write against the owner, and that nobody works on after it was fenced.) In
some runs one of the two dies as well.
DBOS_SIMULATION_SEED and DBOS_SIMULATION_SEEDS as in `seeds`.
"""

from __future__ import annotations

import random

from dbos.records import Verdict, WorkflowFinished, WorkflowStarted

from .checks import baselines, problems
from .database import SimulatedDatabase
from .faults import SeededFaults
from .scenarios import SCENARIOS
from .seeds import check_each, in_chunks, scenario_of
from .world import Result, Scenario, World


def run(seed: int) -> tuple[Scenario, World, Result]:
    rng = random.Random(seed)
    scenario = scenario_of(seed)
    points = len(baselines(scenario.name)[0].points)
    faults = SeededFaults(
        freeze_at=rng.randrange(points),
        seed=seed,
        failure_share=rng.choice((0.0, 0.0, 0.05)),
        slow_share=rng.choice((0.0, 0.0, 0.05)),
        crash_share=rng.choice((0.0, 0.0, 0.01, 0.03)),
    )
    world = World(scenario, faults, seed=seed)
    takeover_after, thaw_after = rng.choice((0.0, 1.0, 15.0)), rng.choice((0.0, 0.001, 0.01, 0.1, 2.0, 30.0))
    return scenario, world, world.run_two(takeover_after, thaw_after)


def judge(seed: int) -> list[str]:
    scenario, _, result = run(seed)
    return problems(scenario, result)


@in_chunks(500)
def test_two_executions_of_one_workflow_have_one_outcome(chunk: list[int]) -> None:
    check_each(chunk, judge)


def test_most_seeds_do_bring_a_takeover_and_a_fenced_execution() -> None:
    worlds = [run(seed)[1] for seed in range(3 * len(SCENARIOS))]
    assert sum(world.handovers for world in worlds) > len(worlds) // 2
    assert sum(world.fenced_executions for world in worlds) > len(worlds) // 3


def test_the_outcome_of_a_fenced_execution_does_not_displace_the_owners_in_the_same_batch() -> None:
    database = SimulatedDatabase(lambda: 1)
    owner = WorkflowStarted(
        "w", "PENDING", "name", None, None, "", "py_pickle", "new", "new", "executor", "v1", "", "simulated", 1
    )
    database.store.commit([owner])
    old = WorkflowFinished("w", "old", "SUCCESS", "stale", None, "py_pickle")
    new = WorkflowFinished("w", "new", "SUCCESS", "fresh", None, "py_pickle")
    assert database.store.commit([old, new]) == [Verdict.FENCED, Verdict.APPLIED]
    assert database.rows("SELECT output FROM workflow_output") == [("fresh",)]
    database.close()
