"""Kill worker processes at random for as long as asked.

    python -m tests.kills.soak --minutes 10 [--backend sqlite|postgres] [--seed N]
    python -m tests.kills.soak --queue 10000 [--backend sqlite|postgres] [--seed N]
    python -m tests.kills.soak --messages 100000 [--backend sqlite|postgres] [--seed N]

Without --backend the campaigns alternate between both. One line per minute; the exit code is 1 at the first lost
workflow, repeated step or wrong outcome, whose files and database are then kept.

With --queue, so many workflows wait on a queue that four workers serve, of which one is killed every few seconds. A new
one with another executor id takes its place. It ends when all are finished, on each backend.

With --messages, so many go from 100 senders to 100 receivers in four processes, killed in the same way.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import tempfile
import time
from pathlib import Path

from tests.databases import fresh_postgres_url, fresh_sqlite_url
from tests.kills.campaign import Campaign
from tests.kills.message_campaign import MessageCampaign
from tests.kills.queue_campaign import QueueCampaign

KILLS_PER_CAMPAIGN = 40
SENDERS = 100


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kills.soak")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--backend", choices=["sqlite", "postgres"])
    parser.add_argument("--seed", type=int, default=1, help="of the first campaign; the next ones count up")
    parser.add_argument("--queue", type=int, metavar="JOBS", help="workers on one queue with so many workflows")
    parser.add_argument("--messages", type=int, metavar="COUNT", help=f"between {SENDERS} senders and receivers")
    options = parser.parse_args()
    if options.messages is not None:
        return kill_mailers(options.messages, options.backend, options.seed)
    if options.queue is not None:
        return kill_queue_workers(options.queue, options.backend, options.seed)
    backends = itertools.cycle([options.backend] if options.backend else ["sqlite", "postgres"])
    began = time.monotonic()
    until = began + options.minutes * 60
    report_at = began + 60
    kills = orders = executions = campaigns = 0

    def report() -> None:
        minutes = (time.monotonic() - began) / 60
        print(
            f"{minutes:6.1f} min  {kills:6d} kills  {orders:7d} orders  {executions:8d} step executions  "
            f"{campaigns:4d} campaigns finished, 0 lost, 0 repeated, 0 wrong",
            flush=True,
        )

    for seed in itertools.count(options.seed):
        backend = next(backends)
        directory = Path(tempfile.mkdtemp(prefix="dbos-soak-"))
        url = fresh_sqlite_url(directory) if backend == "sqlite" else fresh_postgres_url()
        campaign = Campaign(url, directory, seed)
        try:
            for _ in range(KILLS_PER_CAMPAIGN):
                campaign.kill_once()
                kills += 1
                if time.monotonic() >= report_at:
                    report()
                    report_at += 60
                if time.monotonic() >= until:
                    break
            campaign.finish()
        except AssertionError as error:
            print(f"FAILED on {backend}, seed {seed}, after {campaign.kills} kills of the campaign: {error}")
            print(f"Side log, output and SQLite file are in {directory}")
            return 1
        finally:
            campaign.close()
        orders += campaign.orders
        executions += campaign.executions
        campaigns += 1
        shutil.rmtree(directory, ignore_errors=True)
        if time.monotonic() >= until:
            break
    report()
    return 0


def kill_queue_workers(jobs: int, only: str | None, seed: int) -> int:
    for backend in [only] if only else ["sqlite", "postgres"]:
        directory = Path(tempfile.mkdtemp(prefix="dbos-soak-"))
        url = fresh_sqlite_url(directory) if backend == "sqlite" else fresh_postgres_url()
        campaign = QueueCampaign(url, directory, seed, jobs, pause_seconds=(1.0, 3.0))
        try:
            campaign.run()
        except AssertionError as error:
            print(f"FAILED on {backend}, seed {seed}, after {campaign.kills} kills: {error}")
            print(f"Side log, output and SQLite file are in {directory}")
            return 1
        print(f"{backend}: all finished, each step recorded once, none repeated: {campaign.report()}", flush=True)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


def kill_mailers(messages: int, only: str | None, seed: int) -> int:
    for backend in [only] if only else ["sqlite", "postgres"]:
        directory = Path(tempfile.mkdtemp(prefix="dbos-soak-"))
        url = fresh_sqlite_url(directory) if backend == "sqlite" else fresh_postgres_url()
        campaign = MessageCampaign(url, directory, seed, SENDERS, messages, pause_seconds=(3.0, 9.0))
        try:
            campaign.run()
        except AssertionError as error:
            print(f"FAILED on {backend}, seed {seed}, after {campaign.kills} kills: {error}")
            print(f"The log and the SQLite file are in {directory}")
            return 1
        print(f"{backend}: each received once and in order: {campaign.report()}", flush=True)
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
