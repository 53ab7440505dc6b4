"""How long one claim takes, the statement alone; ours only, below the public API.

    python queue_claims.py <database_url> [--partitioned] [--json]

Takes a hundred workflows at a time from what waits on the queue ``bench`` (see ``fill.fill_waiting``).
"""

import argparse
import time
from typing import Any

from probe import emit, percentile_ms
from queue_workloads import QUEUE, configure
from workloads import leave

from dbos.api.runtime import state
from dbos.types import Claim, QueueConfig

CLAIM_SIZE = 100
WARM_UP = 2
CLAIMS = 8


def claims(database_url: str, partitioned: bool) -> dict[str, Any]:
    configure(database_url, "claimer", serve=False)
    assert state.instance is not None
    assert state.instance.engine is not None
    store = state.instance.engine.store
    queue = QueueConfig(QUEUE, partition_concurrency=1 if partitioned else None)
    samples: list[float] = []
    for number in range(WARM_UP + CLAIMS):
        claim = Claim(f"token-{number}", "claimer", "bench-1", "bench", True, CLAIM_SIZE, ("one_step",))
        start = time.perf_counter()
        claimed = store.claim_workflows(queue, claim, int(time.time() * 1000), {})
        samples.append(time.perf_counter() - start)
        if len(claimed) != CLAIM_SIZE:
            raise SystemExit(f"a claim took {len(claimed)} workflows, not {CLAIM_SIZE}")
    return {"operations": CLAIM_SIZE, "p50_ms": percentile_ms(samples[WARM_UP:], 50), "seconds": sum(samples)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database_url")
    parser.add_argument("--partitioned", action="store_true")
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    options = parser.parse_args()
    emit(claims(options.database_url, options.partitioned), options.json)
    leave()


if __name__ == "__main__":
    main()
