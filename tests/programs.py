"""Programs that tests run as processes of their own: they say "ready", and end with their input or are killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent

Process = subprocess.Popen[str]
StartProgram = Callable[..., Process]


def start(program: Path, *arguments: str, errors: int | None = None) -> Process:
    """A process with pipes; `errors` says where its standard error goes, as for Popen."""
    return subprocess.Popen(
        [sys.executable, str(program), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
    )


def wait_until_ready(process: Process) -> Process:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def end(process: Process) -> None:
    """Kill it, if it still runs."""
    process.kill()
    process.communicate()
