"""A SQLite file that cannot be written: a clear error, no damage, and the workflow goes on after the repair."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.api.runtime import state
from dbos.error import DBOSException
from dbos.storage.store import StoreFailed

STEP_BYTES = 100_000
STEPS = 10


class SmallDisk:
    """A file system of 2 MiB of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def url(self) -> str:
        return f"sqlite:///{self.directory / 'system.sqlite'}"

    def fill(self) -> None:
        with (self.directory / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                pass

    def free(self) -> None:
        (self.directory / "ballast").unlink()

    def remount(self, mode: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{mode}", str(self.directory)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    directory = tmp_path / "disk"
    directory.mkdir()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("needs root, to mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield SmallDisk(directory)
    DBOS.destroy(destroy_registry=True)
    subprocess.run(["umount", str(directory)], check=True)


def launch(url: str) -> None:
    DBOS(
        config={
            "name": "disk",
            "application_version": "v1",
            "executor_id": "test",
            "log_level": "CRITICAL",
            "system_database_url": url,
        }
    )
    DBOS.launch()


class Filling:
    """A workflow of steps with large results; `before` is called ahead of each step body."""

    def __init__(self) -> None:
        self.executed: list[int] = []
        self.before: dict[int, Any] = {}

    def register(self) -> Any:
        @DBOS.step(name="big")
        def big(i: int) -> str:
            self.executed.append(i)
            self.before.pop(i, lambda: None)()
            return str(i) * STEP_BYTES

        @DBOS.workflow(name="filling")
        def filling() -> int:
            return sum(len(big(i)) for i in range(STEPS))

        return filling


def check_repaired(url: str, filling: Filling, repeated: int) -> None:
    """After a new launch the workflow ends right; only the step that could not be recorded runs again."""
    launch(url)
    assert DBOS.retrieve_workflow("w").get_result() == STEPS * STEP_BYTES
    assert filling.executed == [*range(repeated + 1), *range(repeated, STEPS)]
    DBOS.destroy(destroy_registry=True)
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def check_pending(url: str, steps: int) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT status FROM workflow_status").fetchall() == [("PENDING",)]
        assert connection.execute("SELECT COUNT(*) FROM operation_outputs").fetchall() == [(steps,)]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_full_disk_stops_the_workflow_with_a_clear_error_and_it_continues_after_space_is_freed(
    disk: SmallDisk,
) -> None:
    filling = Filling()
    workflow = filling.register()
    filling.before[3] = disk.fill
    launch(disk.url)
    with SetWorkflowID("w"), pytest.raises(StoreFailed, match=r"disk is full.*Free disk space") as caught:
        workflow()
    assert str(disk.directory / "system.sqlite") in str(caught.value)
    DBOS.destroy()
    disk.free()
    check_pending(disk.url, steps=3)
    check_repaired(disk.url, filling, repeated=3)


def test_starting_a_workflow_on_a_full_disk_raises_and_leaves_no_workflow(disk: SmallDisk) -> None:
    @DBOS.workflow()
    def echo(text: str) -> str:
        return text

    launch(disk.url)
    disk.fill()
    with SetWorkflowID("w"), pytest.raises(StoreFailed, match="disk is full"):
        DBOS.start_workflow(echo, "a" * STEP_BYTES)
    disk.free()
    assert DBOS.get_workflow_status("w") is None
    with SetWorkflowID("w"):
        assert echo("again") == "again"


def test_a_database_that_turns_read_only_stops_the_workflow_and_it_continues_later(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'system.sqlite'}"
    filling = Filling()
    workflow = filling.register()

    def turn_read_only() -> None:
        # The answers are those of a file system that was remounted read-only after an error.
        assert state.instance is not None
        assert state.instance.engine is not None
        connections: Any = state.instance.engine.store
        connections._db._writer.execute("PRAGMA query_only = ON")

    filling.before[4] = turn_read_only
    launch(url)
    with SetWorkflowID("w"), pytest.raises(StoreFailed, match=r"readonly database.*writable"):
        workflow()
    DBOS.destroy()
    check_pending(url, steps=4)
    check_repaired(url, filling, repeated=4)


def test_launching_on_a_read_only_file_system_names_the_file_and_changes_nothing(disk: SmallDisk) -> None:
    filling = Filling()
    filling.register()
    launch(disk.url)
    DBOS.destroy()
    before = (disk.directory / "system.sqlite").read_bytes()
    disk.remount("ro")
    with pytest.raises(DBOSException, match=r"system\.sqlite"):
        launch(disk.url)
    DBOS.destroy()
    disk.remount("rw")
    assert (disk.directory / "system.sqlite").read_bytes() == before
    launch(disk.url)
