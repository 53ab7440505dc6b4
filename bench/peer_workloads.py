"""Other queues on Postgres, written for their public API: PgQueuer and Oban for Python.

    python peer_workloads.py <pgqueuer|oban> <enqueue_one|enqueue_bulk|drain> <database_url> [--count N] [--json]

Each runs with its own interpreter, which has the package. Jobs are async functions that do nothing, and everything
happens in this process.
"""

import argparse
import asyncio
from typing import Any

from probe import Stopwatch, emit, report

WARM_UP = 20
# Jobs at the same time in the one process.
AT_ONCE = 250


class Countdown:
    """Tells when so many jobs have run."""

    def __init__(self) -> None:
        self.left = 0
        self.done = asyncio.Event()

    def expect(self, count: int) -> None:
        self.left = count
        self.done.clear()

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.done.set()


async def pgqueuer(workload: str, url: str, count: int) -> Stopwatch:
    import asyncpg
    from pgqueuer import PgQueuer, Queries
    from pgqueuer.types import QueueExecutionMode

    pool = await asyncpg.create_pool(url)
    app = PgQueuer.from_asyncpg_pool(pool)
    queries: Queries = app.queries
    await queries.install()
    countdown = Countdown()

    @app.entrypoint("work")
    async def work(job: Any) -> None:
        countdown.tick()

    async def enqueue(jobs: int) -> None:
        await queries.enqueue(["work"] * jobs, [b"1"] * jobs, [0] * jobs)

    if workload == "enqueue_one":
        for _ in range(WARM_UP):
            await queries.enqueue("work", b"1")
        with Stopwatch() as watch:
            for _ in range(count):
                await queries.enqueue("work", b"1")
    elif workload == "enqueue_bulk":
        await enqueue(WARM_UP)
        with Stopwatch() as watch:
            await enqueue(count)
    else:
        await enqueue(count)
        countdown.expect(count)
        with Stopwatch() as watch:
            await app.run(mode=QueueExecutionMode.drain, batch_size=AT_ONCE)
        if countdown.left:
            raise SystemExit(f"{countdown.left} jobs did not run")
    return watch


async def oban(workload: str, url: str, count: int) -> Stopwatch:
    from oban import Oban, worker
    from oban.schema import install

    pool = await Oban.create_pool(url)
    await install(pool)
    countdown = Countdown()

    @worker(queue="bench")
    class Work:
        async def process(self, job: Any) -> None:
            countdown.tick()

    client = Oban(pool=pool)
    make: Any = Work
    if workload == "enqueue_one":
        for _ in range(WARM_UP):
            await client.enqueue(make.new({"i": 1}))
        with Stopwatch() as watch:
            for _ in range(count):
                await client.enqueue(make.new({"i": 1}))
    elif workload == "enqueue_bulk":
        await client.enqueue_many([make.new({"i": 1}) for _ in range(WARM_UP)])
        with Stopwatch() as watch:
            await client.enqueue_many([make.new({"i": i}) for i in range(count)])
    else:
        await client.enqueue_many([make.new({"i": i}) for i in range(count)])
        countdown.expect(count)
        with Stopwatch() as watch:
            async with Oban(pool=pool, name="server", queues={"bench": AT_ONCE}):
                await countdown.done.wait()
    return watch


async def run(options: argparse.Namespace) -> dict[str, Any]:
    peer = pgqueuer if options.peer == "pgqueuer" else oban
    watch = await peer(options.workload, options.database_url, options.count)
    return report(watch, options.count, [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=["pgqueuer", "oban"])
    parser.add_argument("workload", choices=["enqueue_one", "enqueue_bulk", "drain"])
    parser.add_argument("database_url")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    options = parser.parse_args()
    emit(asyncio.run(run(options)), options.json)


if __name__ == "__main__":
    main()
