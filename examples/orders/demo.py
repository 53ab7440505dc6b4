"""Run the order application, kill it hard again and again, and prove that every order was finished once.

    python demo.py                  on SQLite
    python demo.py --db postgres    on Postgres, which it brings along

The exit code is 0 only if every claim holds.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import orders
import proof
import timeline
from evidence import Evidence, collect, unfinished, world_query
from timeline import Kill
from world import CATALOGUE_CENTS

APPLICATION = Path(__file__).with_name("app.py")
RUN_LIMIT_SECONDS = 180.0
DATABASES = {"sqlite": "SQLite", "postgres": "Postgres"}


class Demo:
    """The application as a child process, and the means to kill it."""

    def __init__(self, console: Console, directory: Path, database_url: str, kills: int) -> None:
        self.kills: list[Kill] = []
        self.database_url = database_url
        self.world_path = directory / "world.sqlite"
        self._console = console
        self._log_path = directory / "app.log"
        all_orders = orders.load()
        valid = sum(orders.is_valid(order, CATALOGUE_CENTS) for order in all_orders)
        self._moments = kill_moments(kills, valid)
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(40),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        )
        self._orders_bar = self._progress.add_task("orders finished", total=len(all_orders))
        self._steps_bar = self._progress.add_task("steps completed", total=len(all_orders) + 3 * valid)
        self._kills_bar = self._progress.add_task("kills", total=kills)

    def run(self) -> None:
        """Start the application, and start it again each time it was killed, until it ends by itself."""
        finished: set[str] = set()
        with self._progress:
            while self._run_once(finished):
                self._progress.update(self._kills_bar, completed=len(self.kills))

    def _run_once(self, finished: set[str]) -> bool:
        """Follow one run of the application. True if it was killed."""
        run = len(self.kills) + 1
        with self._log_path.open("a") as log, self._start(log.fileno()) as process:
            hung = threading.Timer(RUN_LIMIT_SECONDS, process.kill)
            hung.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    finished.add(json.loads(line)["order"])
                    shipped = self._show(len(finished))
                    if self._moments and shipped >= self._moments[0]:
                        del self._moments[0]
                        self._kill(process, run, shipped)
                        return True
                process.wait()
            finally:
                hung.cancel()
                process.kill()
        if process.returncode != 0:
            sys.exit(f"run {run} ended with code {process.returncode}:\n{self._log_path.read_text()[-3000:]}")
        return False

    def _start(self, log: int) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "ORDERS_DATABASE_URL": self.database_url,
            "ORDERS_WORLD": str(self.world_path),
            # Not only at night: the kills shall meet some reports.
            "ORDERS_REPORT_TIMES": f"*/{proof.REPORT_SECONDS} * * * * *",
        }
        command = [sys.executable, str(APPLICATION)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log, text=True)

    def _kill(self, process: subprocess.Popen[str], run: int, shipped: int) -> None:
        time.sleep(random.uniform(0, 0.05))
        process.kill()
        process.wait()
        kill = Kill(run, time.time(), unfinished(self.database_url))
        self.kills.append(kill)
        where = f"run {run} (pid {process.pid})"
        self._progress.console.print(f"  [red]SIGKILL[/] {where} after {shipped} parcels, {len(kill.cut_off)} cut off")

    def _show(self, finished: int) -> int:
        """Move the bars; how many parcels the carrier has got."""
        counts = dict(world_query(self.world_path, "SELECT step, count(*) FROM effects GROUP BY step"))
        steps = [counts.get(step, 0) for step in ("validate", "reserve", "charge", "ship")]
        self._progress.update(self._orders_bar, completed=finished)
        self._progress.update(self._steps_bar, completed=sum(steps))
        return steps[-1]


def kill_moments(kills: int, total: int) -> list[int]:
    """After how many parcels to kill. Two moments are close together: the second meets a recovery."""
    moments = random.sample(range(total // 20, total * 19 // 20), kills - 1)
    return sorted([*moments, random.choice(moments) + 10])


@contextmanager
def database(kind: str, directory: Path) -> Iterator[str]:
    """The URL of a fresh system database."""
    if kind == "sqlite":
        yield f"sqlite:///{directory / 'orders.sqlite'}"
        return
    from dbos import embedded_postgres

    server = embedded_postgres.start(directory / "postgres")
    try:
        yield server.url("orders")
    finally:
        server.stop()


def report(console: Console, evidence: Evidence, kills: list[Kill]) -> bool:
    """Print every claim with its verdict, the figures and the timeline. True if all claims hold."""
    claims = proof.claims(evidence, kills)
    table = Table.grid(padding=(0, 1))
    for claim in claims:
        mark = "[green]✓[/]" if claim.holds else "[bold red]✗[/]"
        table.add_row(f" {mark}", claim.text, f"[dim]{claim.figures}[/]")
    console.print("\n[bold]Proof[/]", table, sep="\n")

    figures = Table.grid(padding=(0, 1))
    figures.add_column(justify="right", width=7)
    for count, text in proof.step_figures(evidence):
        figures.add_row(f"{count:,}", text)
    console.print("\n[bold]Steps[/]", figures, sep="\n")

    workflow = timeline.most_eventful(evidence)
    if workflow is not None:
        console.print(f"\n[bold]Timeline of {workflow.order_id}[/], started {workflow.attempts} times")
        console.print(timeline_table(evidence, timeline.events(evidence, workflow, kills)))
    return all(claim.holds for claim in claims)


def timeline_table(evidence: Evidence, events: list[timeline.Event]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", width=10)
    for event in events:
        run = f"run {event.run} (pid {evidence.pids[event.run]})" if event.run else ""
        duration = f"{event.seconds * 1000:.1f} ms" if event.seconds is not None else ""
        style = {"SIGKILL": "red", "from checkpoint": "green"}.get(event.happened)
        table.add_row(f"{event.at - events[0].at:.3f} s", run, event.step, event.happened, duration, style=style)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill an order application and prove that no order suffers.")
    parser.add_argument("--db", choices=DATABASES, default="sqlite")
    parser.add_argument("--kills", type=int, default=6, help="how often to kill it (at least 2; default: 6)")
    arguments = parser.parse_args()
    if arguments.kills < 2:
        parser.error("--kills must be at least 2")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 100)

    started_at = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="orders-"))
    directory.chmod(0o755)  # as root, Postgres runs as another user, who has to get in
    with database(arguments.db, directory) as database_url:
        title = f"Checking out 1,000 orders on {DATABASES[arguments.db]}"
        console.print(f"[bold]{title}[/], killing the application {arguments.kills} times\n")
        demo = Demo(console, directory, database_url, arguments.kills)
        demo.run()
        holds = report(console, collect(database_url, demo.world_path), demo.kills)
    seconds = time.monotonic() - started_at
    if not holds:
        console.print(f"\n[bold red]A claim does not hold.[/] Everything is kept in {directory}")
        return 1
    shutil.rmtree(directory)
    console.print(f"\n[bold green]Every claim holds[/] after {seconds:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
