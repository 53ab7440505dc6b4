"""How a scenario is declared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..world import Root, Scenario

Functions = dict[str, Callable[..., Any]]
SCENARIOS: list[Scenario] = []


def scenario(
    *roots: Root,
    expected: dict[str, Any],
    versions: int = 1,
    unstable: tuple[str, ...] = (),
    resumes: int = 0,
) -> Callable[[Callable[[int], Functions]], Callable[[int], Functions]]:
    def add(define: Callable[[int], Functions]) -> Callable[[int], Functions]:
        unstable_steps = frozenset({"DBOS.sleep", *unstable})
        SCENARIOS.append(Scenario(define.__name__, define, list(roots), expected, versions, unstable_steps, resumes))
        return define

    return add
