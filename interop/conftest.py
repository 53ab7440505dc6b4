"""Two interpreters with the same program, and fresh databases on both backends.

The incumbent is a black box: it is run, and the rows it makes are read; its standard error, where its tracebacks
show, goes to a file that nobody reads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.databases import _remove_databases, fresh_postgres_url, fresh_sqlite_url  # noqa: E402

# Importing a fixture here is what makes it known to every test.
__all__ = ["_remove_databases"]

INCUMBENT = "dbos==3.4.0"
PATIENCE_SECONDS = 120


@dataclass
class Side:
    """An interpreter that runs `program.py`."""

    name: str
    python: str
    directory: Path

    def call(self, url: str, action: str, *ids: str) -> Any:
        """Run an action to its end; what it answers, and the step bodies it executed."""
        done = self._run(url, action, *ids)
        assert done.returncode == 0, f"{self.name} could not {action}: see {self._errors}"
        return json.loads(done.stdout)

    def leave(self, url: str) -> None:
        """Start workflows and die in the middle of them."""
        done = self._run(url, "leave")
        assert done.returncode == -signal.SIGKILL, f"{self.name} was not killed: see {self._errors}"

    @property
    def _errors(self) -> Path:
        return self.directory / f"{self.name}.stderr"

    def _run(self, url: str, action: str, *ids: str) -> subprocess.CompletedProcess[str]:
        with self._errors.open("ab") as errors:
            return subprocess.run(
                [self.python, str(ROOT / "interop" / "program.py"), url, action, *ids],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                timeout=PATIENCE_SECONDS,
                check=False,
                cwd=self.directory,
                env={**os.environ, "PYTHONHASHSEED": "0"},
            )


@pytest.fixture(scope="session")
def incumbent_python() -> str:
    """Its own environment, made when it is missing; DBOS_INTEROP_PYTHON names another."""
    override = os.environ.get("DBOS_INTEROP_PYTHON")
    if override:
        return override
    home = ROOT / ".venv-incumbent"
    python = home / "bin" / "python"
    installed = python.exists() and _installed(python)
    if not installed:
        venv.create(home, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", INCUMBENT], check=True)
    return str(python)


def _installed(python: Path) -> bool:
    code = "from importlib.metadata import version; print(version('dbos'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == INCUMBENT.partition("==")[2]


@pytest.fixture
def incumbent(incumbent_python: str, tmp_path: Path) -> Side:
    return Side("incumbent", incumbent_python, tmp_path)


@pytest.fixture
def ours(tmp_path: Path) -> Side:
    return Side("ours", sys.executable, tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    """Runs the test once on each backend."""
    return str(request.param)


class Databases:
    """As many fresh databases of one backend as a test needs."""

    def __init__(self, backend: str, directory: Path) -> None:
        self.backend = backend
        self._directory = directory

    def fresh(self) -> str:
        return fresh_sqlite_url(self._directory) if self.backend == "sqlite" else fresh_postgres_url()


@pytest.fixture
def databases(backend: str, tmp_path: Path) -> Databases:
    return Databases(backend, tmp_path)
