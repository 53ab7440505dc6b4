"""One source of time, so that tests and the simulation can supply another."""

from __future__ import annotations

import time


class Clock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        return time.time_ns() // 1_000_000

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()
