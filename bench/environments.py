"""The interpreters and databases of a benchmark run: made here, handed to the runners, removed after."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
INCUMBENT_REQUIREMENT = "dbos==3.4.0"
ABSURD_REQUIREMENTS = ("absurd-sdk==0.5.1", "absurdctl==0.5.1")
PEERS = {"pgqueuer": ("pgqueuer[asyncpg]==1.6.0",), "oban": ("oban==0.7.0",)}
"""Other queues on Postgres, and what to install of each."""
CHILD_TIMEOUT_SECONDS = 1_800


class BenchError(Exception):
    """A part of the benchmark could not run; the message says which and why."""


# ------------------------------------------------------------------------------------ interpreters


def ours_python() -> str:
    """The interpreter that has this project's package: the one running this script, unless overridden."""
    return os.environ.get("DBOS_BENCH_OURS_PYTHON", sys.executable)


def incumbent_python() -> str:
    override = os.environ.get("DBOS_BENCH_INCUMBENT_PYTHON")
    return override or _venv_python(ROOT / ".venv-incumbent", (INCUMBENT_REQUIREMENT,))


def absurd_python() -> str:
    override = os.environ.get("DBOS_BENCH_ABSURD_PYTHON")
    return override or _venv_python(ROOT / ".venv-absurd", ABSURD_REQUIREMENTS)


def peer_python(peer: str) -> str:
    """Oban needs Python 3.12; where that is not what runs the benchmark, a newer one that is found on the path."""
    override = os.environ.get(f"DBOS_BENCH_{peer.upper()}_PYTHON")
    base = _newer_python() if peer == "oban" else sys.executable
    return override or _venv_python(ROOT / f".venv-{peer}", PEERS[peer], base)


def _newer_python() -> str:
    if sys.version_info >= (3, 12):
        return sys.executable
    for name in ("python3.14", "python3.13", "python3.12"):
        found = shutil.which(name)
        if found and subprocess.run([found, "--version"], capture_output=True).returncode == 0:
            return found
    for found_path in sorted(Path.home().glob(".pyenv/versions/3.1[2-9]*/bin/python"), reverse=True):
        return str(found_path)
    raise BenchError("it needs Python 3.12 or newer, which is not on the path")


def _venv_python(directory: Path, requirements: tuple[str, ...], base: str = sys.executable) -> str:
    """Made with the interpreter that runs the benchmark, so that all sides share one Python version."""
    python = directory / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    installed = directory / "installed.txt"
    wanted = f"{sys.version} {base}\n" + "\n".join(requirements)
    if installed.exists() and installed.read_text() == wanted:
        return str(python)
    print(f"making {directory.name} with {', '.join(requirements)}", file=sys.stderr)
    shutil.rmtree(directory, ignore_errors=True)
    _run([base, "-m", "venv", str(directory)], "create a virtual environment")
    _run([str(python), "-m", "pip", "install", "--quiet", *requirements], f"install {requirements}")
    installed.write_text(wanted)
    return str(python)


def _run(command: list[str], purpose: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise BenchError(f"could not {purpose}: {done.stderr.strip()[-500:]}")


# ------------------------------------------------------------------------------------------ backends


class SQLite:
    """Databases are files of a fresh directory on the disk that holds ``TMPDIR``."""

    name = "sqlite"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        self._count += 1
        path = self._directory / f"bench{self._count}.sqlite"
        try:
            yield f"sqlite:///{path}"
        finally:
            for leftover in self._directory.glob(path.name + "*"):
                leftover.unlink()

    def settle(self) -> None:
        """Write out what the run before left in the page cache, so that no run pays for another."""
        os.sync()

    def describe(self) -> str:
        return f"SQLite {sqlite3.sqlite_version} (bundled with Python)"


class Postgres:
    """Databases of one server, created empty and dropped after use."""

    name = "postgres"

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._count = 0

    @contextmanager
    def fresh_database(self) -> Iterator[str]:
        self._count += 1
        name = f"dbos_bench_{os.getpid()}_{self._count}"
        quoted = sql.Identifier(name)
        self._admin(sql.SQL("CREATE DATABASE {}").format(quoted))
        try:
            yield self._url_of(name)
        finally:
            self._admin(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(quoted))

    def settle(self) -> None:
        """A checkpoint that falls into a run would charge it for the writes of the run before."""
        with suppress(psycopg.errors.InsufficientPrivilege):
            self._admin(sql.SQL("CHECKPOINT"))

    def describe(self) -> str:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            shown = [
                connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone()
                for name in ("server_version", "fsync", "synchronous_commit")
            ]
        values = [row[0] for row in shown if row]
        return "PostgreSQL {}, fsync={}, synchronous_commit={}".format(*values)

    def transactions(self, url: str) -> int:
        """Transactions in a database so far."""
        name = urlsplit(url).path.removeprefix("/")
        query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            row = connection.execute(query, (name,)).fetchone()
        assert row is not None
        return int(row[0])

    def _url_of(self, database: str) -> str:
        return urlunsplit(urlsplit(self._server_url)._replace(path="/" + database))

    def _admin(self, statement: sql.Composed | sql.SQL) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(statement)


Backend = SQLite | Postgres


@contextmanager
def open_backends(names: list[str]) -> Iterator[list[Backend]]:
    """The backends asked for; both sides of a comparison use the same one.

    Postgres is the server named by DBOS_TEST_POSTGRES_URL (a user that may create databases), otherwise one
    that lives in a temporary directory for this run, with the default, durable settings.
    """
    from dbos.temporary import temporary_directory, temporary_server

    with ExitStack() as stack:
        directory = stack.enter_context(temporary_directory("dbos-bench-files-"))
        backends: list[Backend] = []
        for name in names:
            if name == "sqlite":
                backends.append(SQLite(directory))
            else:
                url = os.environ.get("DBOS_TEST_POSTGRES_URL")
                backends.append(Postgres(url or stack.enter_context(temporary_server("dbos-bench-pg-")).url()))
        yield backends


# ------------------------------------------------------------------------------------------ children


def environment_of(python: str) -> dict[str, str]:
    """The caller's variables; without PYTHONPATH for a rival, whose package a source tree could shadow."""
    environment = dict(os.environ)
    if python != ours_python():
        environment.pop("PYTHONPATH", None)
    return environment


class Child:
    """A script of this directory in a fresh process, which ends by printing one JSON line.

    What it prints on stderr goes to a file: nobody reads it while the child runs, and a full pipe would
    stop it.
    """

    def __init__(self, python: str, script: str, *arguments: str, **environment: str) -> None:
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the child
        self._process = subprocess.Popen(
            [python, str(BENCH / script), *arguments],
            env=environment_of(python) | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
        )

    def expect(self, line: str) -> None:
        """Wait until it prints this line."""
        assert self._process.stdout is not None
        if self._process.stdout.readline() != line + "\n":
            self.kill()
            raise BenchError(f"did not say {line!r}\n{self.complaint()}")

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait(self, send: str | None = None) -> tuple[int, str]:
        """The exit code and what it printed, after sending ``send`` to its standard input."""
        try:
            stdout, _ = self._process.communicate(send, timeout=CHILD_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise BenchError(f"no result after {CHILD_TIMEOUT_SECONDS} s\n{self.complaint()}") from None
        return self._process.returncode, stdout

    def result(self, send: str | None = None) -> dict[str, Any]:
        code, stdout = self.wait(send)
        lines = [line for line in stdout.splitlines() if line.startswith("{")]
        if code != 0 or not lines:
            raise BenchError(f"ended with code {code}\n{self.complaint() or stdout}")
        record: dict[str, Any] = json.loads(lines[-1])
        return record

    def complaint(self) -> str:
        """The end of what it printed on stderr."""
        self._stderr.seek(0)
        return "\n".join(self._stderr.read().strip().splitlines()[-12:])


def run_child(python: str, script: str, *arguments: str) -> dict[str, Any]:
    return Child(python, script, *arguments).result()
