"""Temporary directories and servers, of processes that end and of some that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from dbos.temporary import remove_leftovers, temporary_directory, temporary_server
from tests.helpers import wait_until

Start = Callable[[str], tuple["subprocess.Popen[str]", str]]


@pytest.fixture
def prefix() -> Iterator[str]:
    prefix = f"dbos-test-temporary-{uuid.uuid4().hex[:8]}-"
    yield prefix
    remove_leftovers(prefix)


@pytest.fixture
def start(prefix: str) -> Iterator[Start]:
    """Runs a process that makes a directory or a server, tells where, and then waits to be killed."""
    processes: list[subprocess.Popen[str]] = []

    def start(expression: str) -> tuple[subprocess.Popen[str], str]:
        code = (
            "import sys\nfrom dbos.temporary import *\n"
            f"with {expression} as made:\n    print(made, flush=True)\n    sys.stdin.read()\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        processes.append(process)
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def found(prefix: str) -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{prefix}*"))


def answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=5):
            return True
    except psycopg.OperationalError:
        return False


def heir_of(process: subprocess.Popen[str]) -> int:
    (pid,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(pid)


def test_a_server_is_there_until_its_block_ends(prefix: str) -> None:
    with temporary_server(prefix) as server:
        assert answers(server.url())
        assert found(prefix) == [server.directory.parent]
    assert not answers(server.url())
    assert found(prefix) == []


def test_the_server_of_a_process_that_is_killed_is_stopped_and_removed(prefix: str, start: Start) -> None:
    process, url = start(f"temporary_server({prefix!r}) as server, __import__('contextlib').nullcontext(server.url())")
    assert answers(url)
    process.kill()
    wait_until(lambda: not found(prefix))
    assert not answers(url)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds the heir in /proc")
def test_what_is_left_when_everybody_is_killed_goes_with_the_next_directory(prefix: str, start: Start) -> None:
    process, left = start(f"temporary_directory({prefix!r})")
    os.kill(heir_of(process), signal.SIGKILL)
    process.kill()
    process.wait()
    assert found(prefix) == [Path(left)]
    with temporary_directory(prefix) as directory:
        assert found(prefix) == [directory]


def test_directories_in_use_and_foreign_ones_stay(prefix: str, start: Start) -> None:
    _, used = start(f"temporary_directory({prefix!r})")
    foreign = Path(tempfile.mkdtemp(prefix=prefix))
    with temporary_directory(prefix) as directory:
        remove_leftovers(prefix)
        assert set(found(prefix)) == {Path(used), foreign, directory}
    foreign.rmdir()
