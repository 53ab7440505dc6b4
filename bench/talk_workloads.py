"""Messages, events, streams: the file that runs unchanged against this project's ``dbos`` and the incumbent's.

    python talk_workloads.py <workload> <database_url> [--count N] [--executor ID] [--json]

As in ``workloads.py``, only documented API is used and settings are the defaults.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from probe import Stopwatch, current_rss_mb, emit, percentile_ms, report
from workloads import check, leave

from dbos import DBOS, DBOSConfig, SetWorkflowID

WRITERS = 100
READERS = 1_000
WARM_UP = 5
WAITING_SECONDS = 600.0


@DBOS.workflow()
def ping(other: str, rounds: int) -> int:
    for i in range(rounds):
        DBOS.send(other, i)
        check(DBOS.recv(timeout_seconds=WAITING_SECONDS), i)
    return rounds


@DBOS.workflow()
def pong(other: str, rounds: int) -> int:
    for i in range(rounds):
        check(DBOS.recv(timeout_seconds=WAITING_SECONDS), i)
        DBOS.send(other, i)
    return rounds


@DBOS.workflow()
def sets_events(count: int) -> int:
    for i in range(count):
        DBOS.set_event("progress", i)
    return count


@DBOS.workflow()
def writes_stream(count: int) -> int:
    for i in range(count):
        DBOS.write_stream("tokens", i)
    return count


@DBOS.workflow()
async def sets_events_async(count: int) -> int:
    for i in range(count):
        await DBOS.set_event_async("progress", i)
    return count


@DBOS.workflow()
async def writes_stream_async(count: int) -> int:
    for i in range(count):
        await DBOS.write_stream_async("tokens", i)
    return count


def configure(database_url: str, executor: str) -> None:
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": database_url,
        "executor_id": executor,
        "application_version": "bench-1",
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()


# ----------------------------------------------------------------------------------------------- throughput


def ping_pong(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Two workflows of one process in turn: send, recv, send, recv."""
    configure(database_url, options.executor)
    play(2, "warm-up")
    with Stopwatch() as watch:
        play(options.count, "match")
    return without_steps(watch, options.count)


def play(rounds: int, name: str) -> None:
    # The one that receives first waits before anybody sends to the other.
    handles = []
    for workflow, own, other in ((pong, "pong", "ping"), (ping, "ping", "pong")):
        with SetWorkflowID(f"{name}-{own}"):
            handles.append(DBOS.start_workflow(workflow, f"{name}-{other}", rounds))
    for handle in handles:
        check(handle.get_result(), rounds)


def event_sets(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    return _alone(database_url, options, sets_events)


def stream_writes(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    return _alone(database_url, options, writes_stream)


def _alone(database_url: str, options: argparse.Namespace, workflow: Callable[[int], int]) -> dict[str, Any]:
    """One workflow, one after the other."""
    configure(database_url, options.executor)
    workflow(WARM_UP)
    with Stopwatch() as watch:
        check(workflow(options.count), options.count)
    return without_steps(watch, options.count)


def event_writers(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    return asyncio.run(_together(database_url, options, sets_events_async))


def stream_writers(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    return asyncio.run(_together(database_url, options, writes_stream_async))


async def _together(database_url: str, options: argparse.Namespace, workflow: Any) -> dict[str, Any]:
    """100 async workflows at once, each one after the other."""
    configure(database_url, options.executor)
    await workflow(WARM_UP)
    each = max(1, options.count // WRITERS)
    with Stopwatch() as watch:
        done = await asyncio.gather(*[workflow(each) for _ in range(WRITERS)])
    check(sum(done), each * WRITERS)
    return without_steps(watch, each * WRITERS)


# ------------------------------------------------------------------------------------------------- latency


@DBOS.workflow()
def receives(count: int) -> list[float]:
    """Seconds from each call that made a value known to its arrival, on the clock that all processes share."""
    late = []
    for _ in range(count):
        sent_at = DBOS.recv(timeout_seconds=WAITING_SECONDS)
        late.append(time.time() - sent_at)
    return late


@DBOS.workflow()
def publishes(count: int) -> int:
    DBOS.recv(timeout_seconds=WAITING_SECONDS)
    for i in range(count):
        pause()
        DBOS.set_event(f"event {i}", time.time())
    return count


@DBOS.workflow()
def streams(count: int) -> int:
    DBOS.recv(timeout_seconds=WAITING_SECONDS)
    for _ in range(count):
        pause()
        DBOS.write_stream("times", time.time())
    DBOS.close_stream("times")
    return count


def pause() -> None:
    # The other side is to wait, whatever it does after each value.
    time.sleep(0.02)


TALKERS = {"receiver": receives, "publisher": publishes, "streamer": streams}


def message_latency(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Plain code sends, a workflow of this or another process receives."""
    prepare(database_url, options, "receiver")
    for _ in range(options.count):
        pause()
        DBOS.send("receiver", time.time())
    return lateness(DBOS.retrieve_workflow("receiver").get_result())


def event_latency(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """A workflow of this or another process sets events, plain code waits for them."""
    prepare(database_url, options, "publisher")
    DBOS.send("publisher", "go")
    late = []
    for i in range(options.count):
        sent_at = DBOS.get_event("publisher", f"event {i}", WAITING_SECONDS)
        late.append(time.time() - sent_at)
    return lateness(late)


def stream_latency(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """A workflow of this or another process writes a stream, plain code reads it."""
    prepare(database_url, options, "streamer")
    DBOS.send("streamer", "go")
    return lateness([time.time() - sent_at for sent_at in DBOS.read_stream("streamer", "times")])


def prepare(database_url: str, options: argparse.Namespace, talker: str) -> None:
    configure(database_url, options.executor)
    if not options.across:
        start_talker(talker, options.count)


def start_talker(name: str, count: int) -> None:
    with SetWorkflowID(name):
        DBOS.start_workflow(TALKERS[name], count)


def lateness(late: list[float]) -> dict[str, Any]:
    return {"operations": len(late), "p50_ms": percentile_ms(late, 50), "p99_ms": percentile_ms(late, 99)}


def serve(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Launch, start the workflow that a line of the input names, say so, and serve until the input ends."""
    configure(database_url, options.executor)
    for line in sys.stdin:
        start_talker(line.strip(), options.count)
        print("started", flush=True)
    return {"rss_mb": current_rss_mb()}


def readers(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    """1,000 readers of one stream in one process, each of which gets every value."""
    return asyncio.run(_read_together(database_url, options))


async def _read_together(database_url: str, options: argparse.Namespace) -> dict[str, Any]:
    configure(database_url, options.executor)
    late: list[float] = []

    async def read() -> int:
        count = 0
        async for sent_at in DBOS.read_stream_async("streamer", "times"):
            late.append(time.time() - sent_at)
            count += 1
        return count

    with SetWorkflowID("streamer"):
        await DBOS.start_workflow_async(streams_async, options.count)
    with Stopwatch() as watch:
        done = await asyncio.gather(*[read() for _ in range(READERS)])
    check(done, [options.count] * READERS)
    return {**without_steps(watch, options.count * READERS), **lateness(late)}


@DBOS.workflow()
async def streams_async(count: int) -> int:
    for _ in range(count):
        await asyncio.sleep(0.1)
        await DBOS.write_stream_async("times", time.time())
    await DBOS.close_stream_async("times")
    return count


def without_steps(watch: Stopwatch, operations: int) -> dict[str, Any]:
    return {key: value for key, value in report(watch, operations, []).items() if key not in ("p50_ms", "p99_ms")}


WORKLOADS = {
    workload.__name__: workload
    for workload in (
        ping_pong,
        event_sets,
        stream_writes,
        event_writers,
        stream_writers,
        message_latency,
        event_latency,
        stream_latency,
        readers,
        serve,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("database_url")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--executor", default="bench")
    parser.add_argument("--across", action="store_true", help="latency: another process has the workflow")
    parser.add_argument("--json", action="store_true", help="print one JSON line")
    options = parser.parse_args()
    emit(WORKLOADS[options.workload](options.database_url, options), options.json)
    leave()


if __name__ == "__main__":
    main()
