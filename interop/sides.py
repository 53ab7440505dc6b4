"""An interpreter that runs the program, and databases for it.

The incumbent is a black box: it is run, and the rows it makes are read; its standard error, where its tracebacks
show, goes to a file that nobody reads.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.databases import fresh_postgres_url, fresh_sqlite_url

PROGRAM = Path(__file__).with_name("program.py")
PATIENCE_SECONDS = 120


@dataclass
class Side:
    """An interpreter that runs `program.py`, or another program."""

    name: str
    python: str
    directory: Path
    program: Path = PROGRAM

    def running(self, program: str) -> Side:
        """The same interpreter with another program of this folder."""
        return replace(self, program=PROGRAM.with_name(program))

    def call(self, url: str, action: str, *ids: str) -> Any:
        """Run an action to its end; what it answers, and the step bodies it executed."""
        done = self._run(url, action, *ids)
        assert done.returncode == 0, f"{self.name} could not {action}: see {self._errors}"
        return json.loads(done.stdout)

    def answer(self, url: str, action: str) -> Any:
        """What a program answers that says nothing else."""
        done = self._run(url, action)
        assert done.returncode == 0, f"{self.name} could not {action}: see {self._errors}"
        return json.loads(done.stdout)

    def leave(self, url: str) -> None:
        """Start workflows and die in the middle of them."""
        done = self._run(url, "leave")
        assert done.returncode == -signal.SIGKILL, f"{self.name} was not killed: see {self._errors}"

    @contextmanager
    def started(self, url: str, action: str) -> Iterator[subprocess.Popen[str]]:
        """A process that performs an action while the block lasts, with its input and output open."""
        with self._errors.open("ab") as errors:
            process = subprocess.Popen(
                [self.python, str(self.program), url, action],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=self.directory,
                env=self._environment(),
            )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def _environment(self) -> dict[str, str]:
        environment = {**os.environ, "PYTHONHASHSEED": "0"}
        if self.python != sys.executable:
            # Where this process finds its packages, others would find ours in place of theirs.
            environment.pop("PYTHONPATH", None)
        return environment

    @property
    def _errors(self) -> Path:
        return self.directory / f"{self.name}.stderr"

    def _run(self, url: str, action: str, *ids: str) -> subprocess.CompletedProcess[str]:
        with self._errors.open("ab") as errors:
            return subprocess.run(
                [self.python, str(self.program), url, action, *ids],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                timeout=PATIENCE_SECONDS,
                check=False,
                cwd=self.directory,
                env=self._environment(),
            )


class Databases:
    """As many fresh databases of one backend as a test needs."""

    def __init__(self, backend: str, directory: Path) -> None:
        self.backend = backend
        self._directory = directory

    def fresh(self) -> str:
        return fresh_sqlite_url(self._directory) if self.backend == "sqlite" else fresh_postgres_url()
