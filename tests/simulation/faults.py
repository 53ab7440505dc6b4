"""What goes wrong in a run: decided by a seed, or exactly at one point."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass
class Faults:
    """Nothing goes wrong, and everything takes the same time, but at the points with the numbers in `crash_at` the
    process dies."""

    crash_at: frozenset[int] = frozenset()
    freeze_at: int | None = None
    downtime_seconds: float = 0.0
    # Nothing takes longer than a few milliseconds.
    is_punctual = True

    def crashes(self, point: int) -> bool:
        return point in self.crash_at

    def freezes(self, point: int) -> bool:
        return point == self.freeze_at

    def latency_seconds(self) -> float:
        """How long until a thread that could run does run."""
        return 0.0

    def commit_seconds(self) -> float:
        return 0.001

    def batch_size(self, pending: int) -> int:
        return pending

    def unavailable(self) -> bool:
        """Whether the database does not answer this time, before it has done anything."""
        return False

    def answer_lost(self) -> bool:
        """Whether the database has done it, but the answer is lost."""
        return False


@dataclass
class SeededFaults(Faults):
    """Random latencies, batches, failures and crashes, all from one seed."""

    seed: int = 0
    crash_share: float = 0.0
    max_crashes: int = 3
    failure_share: float = 0.0
    slow_share: float = 0.0
    rng: random.Random = field(init=False)
    is_punctual = False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self._crashes = 0

    def crashes(self, point: int) -> bool:
        if point in self.crash_at:
            return True
        if self._crashes < self.max_crashes and self.rng.random() < self.crash_share:
            self._crashes += 1
            self.downtime_seconds = self.rng.choice((0.0, 0.2, 3.0, 12.0))
            return True
        return False

    def latency_seconds(self) -> float:
        return self.rng.choice((0.0, 0.0, 0.0001, 0.001, 0.004))

    def commit_seconds(self) -> float:
        if self.rng.random() < self.slow_share:
            return self.rng.uniform(0.5, 8.0)
        return self.rng.uniform(0.0, 0.003)

    def batch_size(self, pending: int) -> int:
        return self.rng.randint(1, pending)

    def unavailable(self) -> bool:
        return self.rng.random() < self.failure_share

    def answer_lost(self) -> bool:
        return self.rng.random() < self.failure_share


def seeded(seed: int) -> SeededFaults:
    """The faults of a random schedule: some runs calm, some wild, so that each kind also occurs alone."""
    rng = random.Random(seed * 2 + 1)
    return SeededFaults(
        seed=seed,
        crash_share=rng.choice((0.0, 0.01, 0.02, 0.05)),
        max_crashes=rng.randint(1, 4),
        failure_share=rng.choice((0.0, 0.02, 0.1, 0.3)),
        slow_share=rng.choice((0.0, 0.0, 0.05, 0.2)),
    )
