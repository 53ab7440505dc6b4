"""Tests of many seeds, in chunks that the workers of a test run share.

A failing seed is named in the assertion. DBOS_SIMULATION_SEED=n runs that one alone, DBOS_SIMULATION_SEEDS=m runs the
first m instead of the usual number.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from .scenarios import SCENARIOS
from .world import Scenario

CHUNK = 50


def in_chunks(count: int) -> pytest.MarkDecorator:
    """The test is run with seeds 0 ... `count` - 1, a list of them as `chunk` at a time."""
    alone = os.environ.get("DBOS_SIMULATION_SEED")
    last = int(os.environ.get("DBOS_SIMULATION_SEEDS", str(count)))
    seeds = [int(alone)] if alone else list(range(last))
    chunks = [seeds[start : start + CHUNK] for start in range(0, len(seeds), CHUNK)]
    return pytest.mark.parametrize("chunk", chunks, ids=[f"{chunk[0]}-{chunk[-1]}" for chunk in chunks])


def scenario_of(seed: int) -> Scenario:
    """They take turns."""
    return SCENARIOS[seed % len(SCENARIOS)]


def check_each(
    chunk: list[int],
    problems: Callable[[int], list[str]],
    name: Callable[[int], str] = lambda seed: scenario_of(seed).name,
) -> None:
    """Fails, with the first seed of which there are problems."""
    for seed in chunk:
        where = f"seed {seed} ({name(seed)}), run it alone with DBOS_SIMULATION_SEED={seed}"
        try:
            found = problems(seed)
        except Exception as error:
            raise AssertionError(f"{where}: {error!r}") from error
        assert not found, f"{where}:\n" + "\n".join(found)
