"""Random schedules with random faults: whatever goes wrong, the end is that of the uninterrupted run.

DBOS_SIMULATION_SEED and DBOS_SIMULATION_SEEDS as in `seeds`.
"""

from __future__ import annotations

from .checks import problems
from .faults import seeded
from .scenarios import SCENARIOS
from .seeds import check_each, in_chunks, scenario_of
from .world import Result, World


def run(seed: int) -> tuple[str, Result]:
    scenario = scenario_of(seed)
    return scenario.name, World(scenario, seeded(seed), seed=seed).run()


@in_chunks(2000)
def test_a_random_schedule_with_faults_ends_like_the_uninterrupted_run(chunk: list[int]) -> None:
    check_each(chunk, lambda seed: problems(scenario_of(seed), run(seed)[1]))


def test_a_seed_always_gives_the_same_run() -> None:
    for seed in range(len(SCENARIOS)):
        assert run(seed) == run(seed), f"seed {seed}"


def test_the_seeds_bring_every_kind_of_fault() -> None:
    faults = [seeded(seed) for seed in range(100)]
    assert any(fault.crash_share and fault.failure_share and fault.slow_share for fault in faults)
    assert any(not fault.crash_share and fault.failure_share for fault in faults)
    crashes = [run(seed)[1].crashes for seed in range(3 * len(SCENARIOS))]
    assert sum(crashes) > len(SCENARIOS)
    assert max(crashes) > 1
