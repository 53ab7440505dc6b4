"""A process dies and is never started again: another one with another executor id finishes its work.

Both run from the beginning, and both have clients that ask for the same workflows. The first dies at a random point.
DBOS_SIMULATION_SEED and DBOS_SIMULATION_SEEDS as in `seeds`.
"""

from __future__ import annotations

import random

from .checks import baselines, problems
from .faults import SeededFaults
from .scenarios import SCENARIOS
from .seeds import check_each, in_chunks, scenario_of
from .world import Result, Scenario, World


def run(seed: int) -> tuple[Scenario, World, Result]:
    rng = random.Random(seed)
    scenario = scenario_of(seed)
    faults = SeededFaults(
        seed=seed, failure_share=rng.choice((0.0, 0.0, 0.05)), slow_share=rng.choice((0.0, 0.0, 0.05))
    )
    world = World(scenario, faults, seed=seed)
    return scenario, world, world.run_beside(1 + rng.randrange(len(baselines(scenario.name)[0].points)))


def judge(seed: int) -> list[str]:
    scenario, _, result = run(seed)
    return problems(scenario, result)


@in_chunks(300)
def test_the_work_of_a_dead_process_is_finished_by_a_live_one_with_another_executor_id(chunk: list[int]) -> None:
    check_each(chunk, judge)


def test_most_seeds_do_bring_a_death_and_many_a_takeover() -> None:
    worlds = [run(seed)[1] for seed in range(3 * len(SCENARIOS))]
    assert sum(world.crashes for world in worlds) > len(worlds) // 2
    assert sum(world.taken_over > 0 for world in worlds) > len(worlds) // 4
