"""What must hold after every run, whatever has happened in it."""

from __future__ import annotations

from functools import cache

from .faults import Faults
from .scenarios import SCENARIOS
from .world import Result, Scenario, World

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


@cache
def baselines(name: str) -> tuple[Result, ...]:
    """The uninterrupted run of each version of the code."""
    scenario = BY_NAME[name]
    return tuple(World(scenario, Faults(), first_version=version).run() for version in range(scenario.versions))


def matching_version(scenario: Scenario, result: Result) -> int | None:
    """The version of the code whose uninterrupted run has the same statuses, outcomes and steps."""
    for version, baseline in enumerate(baselines(scenario.name)):
        same = (result.statuses, result.outcomes, result.steps, result.effects) == (
            baseline.statuses,
            baseline.outcomes,
            baseline.steps,
            baseline.effects,
        )
        if same:
            return version
    return None


def problems(scenario: Scenario, result: Result) -> list[str]:
    """Everything that differs from the uninterrupted run, or must never happen."""
    found = list(result.violations)
    version = matching_version(scenario, result)
    if version is None:
        found += _differences(baselines(scenario.name)[0], result)
        return found
    expected = baselines(scenario.name)[version].delivered
    for workflow_id, answers in result.delivered.items():
        for answer in answers:
            if answer != expected[workflow_id][0]:
                found.append(f"{workflow_id} delivered {answer}, expected {expected[workflow_id][0]}")
    for workflow_id in expected:
        if workflow_id not in result.delivered:
            found.append(f"{workflow_id} delivered nothing")
    return found


def _differences(expected: Result, result: Result) -> list[str]:
    found = []
    for what in ("statuses", "outcomes", "steps", "effects"):
        left, right = getattr(expected, what), getattr(result, what)
        for key in sorted(left.keys() | right.keys(), key=str):
            if left.get(key) != right.get(key):
                found.append(f"{what} {key}: expected {left.get(key)}, got {right.get(key)}")
    return found
