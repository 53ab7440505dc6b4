"""A process dies and is never started again: another one with another executor id finishes its work.

Both run from the beginning, and both have clients that ask for the same workflows. The first dies at a random point.
DBOS_SIMULATION_SEED and DBOS_SIMULATION_SEEDS as in `test_random_schedules`.
"""

from __future__ import annotations

import os
import random

import pytest

from .checks import baselines, problems
from .faults import SeededFaults
from .scenarios import SCENARIOS
from .world import Result, Scenario, World

CHUNK = 50


def seeds() -> list[int]:
    alone = os.environ.get("DBOS_SIMULATION_SEED")
    if alone:
        return [int(alone)]
    return list(range(int(os.environ.get("DBOS_SIMULATION_SEEDS", "300"))))


CHUNKS = [seeds()[start : start + CHUNK] for start in range(0, len(seeds()), CHUNK)]


def run(seed: int) -> tuple[Scenario, World, Result]:
    rng = random.Random(seed)
    scenario = SCENARIOS[seed % len(SCENARIOS)]
    faults = SeededFaults(
        seed=seed, failure_share=rng.choice((0.0, 0.0, 0.05)), slow_share=rng.choice((0.0, 0.0, 0.05))
    )
    world = World(scenario, faults, seed=seed)
    return scenario, world, world.run_beside(1 + rng.randrange(len(baselines(scenario.name)[0].points)))


@pytest.mark.parametrize("chunk", CHUNKS, ids=[f"{chunk[0]}-{chunk[-1]}" for chunk in CHUNKS])
def test_the_work_of_a_dead_process_is_finished_by_a_live_one_with_another_executor_id(chunk: list[int]) -> None:
    for seed in chunk:
        name = SCENARIOS[seed % len(SCENARIOS)].name
        where = f"seed {seed} ({name}), run it alone with DBOS_SIMULATION_SEED={seed}"
        try:
            scenario, _, result = run(seed)
        except Exception as error:
            raise AssertionError(f"{where}: {error!r}") from error
        found = problems(scenario, result)
        assert not found, f"{where}:\n" + "\n".join(found)


def test_most_seeds_do_bring_a_death_and_many_a_takeover() -> None:
    worlds = [run(seed)[1] for seed in range(3 * len(SCENARIOS))]
    assert sum(world.crashes for world in worlds) > len(worlds) // 2
    assert sum(world.taken_over > 0 for world in worlds) > len(worlds) // 4
