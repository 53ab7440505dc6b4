"""Workflows are cancelled, resumed, forked, rewound and deleted at random while they run, crash and are taken over.

Whatever happens: a cancelled workflow records nothing until it is resumed, and a deleted one nothing at all; a recorded
step is not executed again; a fork has the history of its source at one moment; a deletion leaves no row behind; and in
the end everything is finished, with the right results.
DBOS_SIMULATION_SEED and DBOS_SIMULATION_SEEDS as in `seeds`.
"""

from __future__ import annotations

import random
from collections import Counter

from .faults import SeededFaults, seeded
from .managed import ManagedWorld
from .seeds import check_each, in_chunks
from .world import Result

CALLS = {"cancel", "resume", "fork", "rewind", "delete", "attributes"}


def run(seed: int) -> tuple[ManagedWorld, Result]:
    """One process after the other, or two beside each other, or two of which one is taken for dead and wakes up."""
    rng = random.Random(f"load {seed}")
    faults = seeded(seed)
    kind = rng.choice(("alone", "beside", "taken over"))
    if kind == "alone":
        world = ManagedWorld(faults, seed=seed)
        return world, world.run()
    faults = SeededFaults(seed=seed, failure_share=faults.failure_share, slow_share=faults.slow_share)
    if kind == "beside":
        world = ManagedWorld(faults, seed=seed)
        return world, world.run_beside(1 + rng.randrange(400))
    faults.freeze_at = rng.randrange(400)
    world = ManagedWorld(faults, seed=seed)
    return world, world.run_two(rng.choice((0.0, 1.0, 15.0)), rng.choice((0.0, 0.01, 2.0, 30.0)))


@in_chunks(400)
def test_managing_at_random_while_workflows_run_breaks_nothing(chunk: list[int]) -> None:
    check_each(chunk, lambda seed: run(seed)[1].violations, lambda seed: "managed")


def test_the_seeds_bring_every_call_in_states_that_allow_it_and_in_others() -> None:
    made: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    crashes = fenced = 0
    for seed in range(30):
        world, result = run(seed)
        made += world.made
        refused += world.refused
        crashes += result.crashes
        fenced += world.fenced_executions
    assert set(made) == CALLS
    assert {"resume", "fork", "rewind"} <= set(refused)
    assert min(made[name] for name in CALLS) > 20
    assert crashes > 10
    assert fenced > 30


def test_a_seed_always_gives_the_same_run() -> None:
    for seed in range(4):
        assert run(seed)[1] == run(seed)[1], f"seed {seed}"
