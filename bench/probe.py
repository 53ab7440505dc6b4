"""What a measured process reports about itself: time, latencies, memory, CPU.

Standard library only: it is imported by every child process, whatever the virtual environment.
"""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def percentile_ms(samples_seconds: list[float], percent: float) -> float:
    """The nearest-rank percentile in milliseconds; 0.0 without samples."""
    if not samples_seconds:
        return 0.0
    ordered = sorted(samples_seconds)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1] * 1000


def _proc_status_mb(field: str) -> float | None:
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    for line in text.splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    return None


def peak_rss_mb() -> float:
    """The largest resident set of this process so far.

    Linux keeps a parent's ``ru_maxrss`` across fork and exec, so a small child of a large runner would
    report the runner's figure; ``VmHWM`` belongs to the new program alone.
    """
    measured = _proc_status_mb("VmHWM")
    if measured is not None:
        return measured
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024**2 if sys.platform == "darwin" else peak / 1024


def current_rss_mb() -> float:
    """The resident set now; where only the peak is known (no /proc), the peak."""
    measured = _proc_status_mb("VmRSS")
    return peak_rss_mb() if measured is None else measured


def cpu_seconds() -> float:
    """User and system time of this process, all threads, since it started."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Stopwatch:
    """Times a ``with`` block: wall-clock seconds and the CPU seconds this process spent in it."""

    def __enter__(self) -> "Stopwatch":
        self._cpu_start = cpu_seconds()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start
        self.cpu_seconds = cpu_seconds() - self._cpu_start


def report(watch: Stopwatch, operations: int, step_seconds: list[float], **extra: Any) -> dict[str, Any]:
    """The record every workload hands back; ``step_seconds`` are the latencies seen by the caller."""
    return {
        "seconds": watch.seconds,
        "operations": operations,
        "p50_ms": percentile_ms(step_seconds, 50),
        "p99_ms": percentile_ms(step_seconds, 99),
        "rss_mb": peak_rss_mb(),
        "cpu_seconds": watch.cpu_seconds,
        **extra,
    }


def emit(record: dict[str, Any], as_json: bool) -> None:
    """Print the record: one JSON line for the runner, or a line to read."""
    if as_json:
        text = json.dumps(record)
    else:
        text = "  ".join(f"{k}={v:.3f}" if isinstance(v, float) else f"{k}={v}" for k, v in record.items())
    print(text, flush=True)
