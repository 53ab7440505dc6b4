"""Random schedules with random faults: whatever goes wrong, the end is that of the uninterrupted run.

A failing seed is named in the assertion. DBOS_SIMULATION_SEED=n runs that one alone, DBOS_SIMULATION_SEEDS=m runs the
first m instead of 2,000.
"""

from __future__ import annotations

import os

import pytest

from .checks import problems
from .faults import seeded
from .scenarios import SCENARIOS
from .world import Result, World

CHUNK = 50


def seeds() -> list[int]:
    alone = os.environ.get("DBOS_SIMULATION_SEED")
    if alone:
        return [int(alone)]
    return list(range(int(os.environ.get("DBOS_SIMULATION_SEEDS", "2000"))))


CHUNKS = [seeds()[start : start + CHUNK] for start in range(0, len(seeds()), CHUNK)]


def run(seed: int) -> tuple[str, Result]:
    scenario = SCENARIOS[seed % len(SCENARIOS)]
    return scenario.name, World(scenario, seeded(seed), seed=seed).run()


@pytest.mark.parametrize("chunk", CHUNKS, ids=[f"{chunk[0]}-{chunk[-1]}" for chunk in CHUNKS])
def test_a_random_schedule_with_faults_ends_like_the_uninterrupted_run(chunk: list[int]) -> None:
    for seed in chunk:
        scenario = SCENARIOS[seed % len(SCENARIOS)]
        try:
            found = problems(scenario, World(scenario, seeded(seed), seed=seed).run())
        except Exception as error:
            raise AssertionError(f"seed {seed} ({scenario.name}): {error!r}; {alone(seed)}") from error
        assert not found, f"seed {seed} ({scenario.name}), {alone(seed)}:\n" + "\n".join(found)


def alone(seed: int) -> str:
    return f"run it alone with DBOS_SIMULATION_SEED={seed}"


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
