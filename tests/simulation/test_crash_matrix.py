"""A crash at every point of every scenario: recovery always ends as if nothing had happened."""

from __future__ import annotations

import pytest

from .checks import BY_NAME, baselines, matching_version, problems
from .faults import Faults
from .world import Result, World


def crash_points(name: str) -> list[int]:
    """Where a process dies: before and after each yield of each operation, and before and after each write."""
    return [number for number, label in enumerate(baselines(name)[0].points) if not label.startswith("idle")]


def crash(name: str, *points: int, downtime_seconds: float = 0.0) -> Result:
    return World(BY_NAME[name], Faults(frozenset(points), downtime_seconds=downtime_seconds)).run()


def check(name: str, result: Result, what: str) -> None:
    found = problems(BY_NAME[name], result)
    assert not found, f"{name}, {what}:\n" + "\n".join(found)


def test_the_matrix_has_at_least_a_thousand_distinct_crash_points() -> None:
    counts = {name: len(crash_points(name)) for name in BY_NAME}
    total = sum(counts.values())
    print(f"{total} crash points: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    assert total >= 1000


@pytest.mark.parametrize("name", BY_NAME)
def test_the_uninterrupted_run_has_the_expected_outcome(name: str) -> None:
    (result, *_) = baselines(name)
    assert not result.violations
    for workflow_id, expected in BY_NAME[name].expected.items():
        for kind, text in result.delivered[workflow_id]:
            if kind == "value":
                assert text == repr(expected)
            else:
                assert isinstance(expected, str)
                assert text.startswith(expected)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_crash_at_any_point_changes_nothing(name: str) -> None:
    for point in crash_points(name):
        result = crash(name, point, downtime_seconds=(0.0, 3.0)[point % 2])
        assert result.crashes == 1
        check(name, result, f"crash at point {point} ({baselines(name)[0].points[point]})")


@pytest.mark.parametrize("name", BY_NAME)
def test_a_second_crash_during_the_recovery_changes_nothing(name: str) -> None:
    for index, point in enumerate(crash_points(name)[::4]):
        later = point + 1 + (index * 7) % 29
        check(name, crash(name, point, later), f"crashes at points {point} and {later}")


def test_the_same_crash_happens_the_same_way_again() -> None:
    for name in ("many_at_once", "async_children", "management"):
        points = crash_points(name)
        point = points[len(points) // 2]
        first, second = crash(name, point), crash(name, point)
        assert first.points == second.points
        assert first == second


def test_a_workflow_past_a_patch_keeps_the_old_path_and_any_other_takes_the_new() -> None:
    for point in crash_points("patches"):
        result = crash("patches", point)
        is_past = ("w", 2, "old") in result.recorded_at_crash
        assert matching_version(BY_NAME["patches"], result) == (0 if is_past else 1), f"crash at point {point}"
