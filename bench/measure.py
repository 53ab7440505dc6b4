"""One measurement each: a fresh database, a fresh process, one record."""

import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
from environments import Backend, BenchError, Child, environment_of, ours_python, run_child

RECOVERY_TIMEOUT_SECONDS = 900
RECOVERY_POLL_SECONDS = 0.01
STEPS_RECORDED = 10
PENDING_WORKFLOWS = 1_000
IMPORT = "import time; t = time.perf_counter(); import dbos; print((time.perf_counter() - t) * 1000)"

Record = dict[str, Any]


def measure_workload(python: str, workload: str, backend: Backend, scale: float) -> Record:
    with backend.fresh_database() as url:
        return measure_workload_in(url, python, workload, backend, scale)


def measure_workload_in(url: str, python: str, workload: str, backend: Backend, scale: float) -> Record:
    """The same in a database that is there already."""
    backend.settle()
    return run_child(python, "workloads.py", workload, url, "--json", "--scale", str(scale))


def measure_recovery(python: str, backend: Backend, scale: float) -> Record:
    """From before the second process is started until all rows are SUCCESS, as seen from outside."""
    expected = int(PENDING_WORKFLOWS * scale)
    arguments = ("--json", "--scale", str(scale))
    with backend.fresh_database() as url:
        crashed = Child(python, "workloads.py", "leave_pending", url, *arguments)
        code, _ = crashed.wait()
        if code != -signal.SIGKILL:
            raise BenchError(f"the process to be killed ended by itself\n{crashed.complaint()}")
        with closing(Observer(url)) as observer:
            observer.require_pending(expected)
            backend.settle()
            start = time.perf_counter()
            recovering = Child(python, "workloads.py", "recover", url, *arguments, DBOS_BENCH_GO="1")
            try:
                observer.wait_for_success(expected, recovering)
            except BaseException:
                recovering.kill()
                raise
            seconds = time.perf_counter() - start
            observer.require_steps(expected)
            record = recovering.result(send="\n")
            if record["steps_run"] != 0:
                raise BenchError(f"{record['steps_run']} recorded steps were run again")
            return {"seconds": seconds} | record


class Observer:
    """Reads the system tables the way anybody could, so that neither side judges its own recovery."""

    def __init__(self, url: str, poll_seconds: float = RECOVERY_POLL_SECONDS) -> None:
        self._poll_seconds = poll_seconds
        self._connection: sqlite3.Connection | psycopg.Connection[Any]
        if url.startswith("sqlite:///"):
            self._connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=30)
            self._schema = ""
        else:
            self._connection = psycopg.connect(url, autocommit=True)
            self._schema = "dbos."

    def close(self) -> None:
        self._connection.close()

    def _count(self, table: str, condition: str = "TRUE") -> int:
        # One round trip on purpose: it runs next to what is being measured.
        row = self._connection.execute(f"SELECT count(*) FROM {self._schema}{table} WHERE {condition}").fetchone()
        assert row is not None
        return int(row[0])

    def require_pending(self, expected: int) -> None:
        pending = self._count("workflow_status", "status = 'PENDING'")
        if pending != expected:
            raise BenchError(f"{pending} workflows are PENDING after the crash, expected {expected}")
        self.require_steps(expected)

    def require_steps(self, workflows: int) -> None:
        steps = self._count("operation_outputs")
        if steps != workflows * STEPS_RECORDED:
            raise BenchError(f"{steps} steps are recorded, expected {workflows * STEPS_RECORDED}")

    def seconds_of_work(self, expected: int, steps_each: int) -> float:
        """From the first claim to the last outcome, as the rows have it; each of them claimed once, no step missing."""
        row = self._connection.execute(
            f"SELECT min(started_at_epoch_ms), max(completed_at), max(recovery_attempts), count(*) "
            f"FROM {self._schema}workflow_status WHERE status = 'SUCCESS'"
        ).fetchone()
        assert row is not None
        began_ms, ended_ms, attempts, count = row
        if (count, attempts) != (expected, 1):
            raise BenchError(f"{count} workflows of {expected} succeeded, in up to {attempts} attempts")
        if self._count("operation_outputs") != expected * steps_each:
            raise BenchError("steps are missing or were recorded twice")
        return float(ended_ms - began_ms) / 1000

    def wait_for_success(self, expected: int, child: Child) -> None:
        deadline = time.monotonic() + RECOVERY_TIMEOUT_SECONDS
        while (done := self._count("workflow_status", "status = 'SUCCESS'")) < expected:
            if not child.is_running():
                raise BenchError(f"the recovering process ended after {done} workflows\n{child.complaint()}")
            if time.monotonic() > deadline:
                raise BenchError(f"{done} of {expected} recovered in {RECOVERY_TIMEOUT_SECONDS} s")
            time.sleep(self._poll_seconds)


def measure_floor(backend: Backend, scale: float) -> Record:
    """The bare driver, in tables our package has created."""
    with backend.fresh_database() as url:
        run_child(ours_python(), "workloads.py", "create_schema", url, "--json")
        backend.settle()
        return run_child(ours_python(), "floor.py", url, "--json", "--scale", str(scale))


def measure_workflow_floor(workload: str, backend: Backend, count: int) -> Record:
    with backend.fresh_database() as url:
        run_child(ours_python(), "workloads.py", "create_schema", url, "--json")
        backend.settle()
        return run_child(ours_python(), "workflow_floor.py", workload, url, "--count", str(count), "--json")


def measure_absurd(python: str, workload: str, backend: Backend, scale: float) -> Record:
    with backend.fresh_database() as url:
        absurdctl = Path(python).with_name("absurdctl")
        done = subprocess.run([str(absurdctl), "init", "-d", url], capture_output=True, text=True)
        if done.returncode != 0:
            raise BenchError(f"absurdctl init: {(done.stderr or done.stdout).strip()[-300:]}")
        backend.settle()
        return run_child(python, "absurd_workloads.py", workload, url, "--json", "--scale", str(scale))


def measure_import_ms(python: str) -> float:
    """``import dbos`` in a fresh interpreter; the caller throws the first one away, it compiles."""
    done = subprocess.run([python, "-c", IMPORT], **_probing(python))
    if done.returncode != 0:
        raise BenchError(f"import dbos: {done.stderr.strip()[-300:]}")
    return float(done.stdout)


def version_of(python: str) -> str:
    code = "from importlib.metadata import version; print(version('dbos'))"
    done = subprocess.run([python, "-c", code], **_probing(python))
    return done.stdout.strip() or "not installed"


def _probing(python: str) -> dict[str, Any]:
    # The working directory is on the path of `python -c`; from the project root it could shadow a package.
    return {"capture_output": True, "text": True, "cwd": "/", "env": environment_of(python)}
