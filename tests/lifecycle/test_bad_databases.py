"""Database files that cannot be used, full disks, very large values: typed errors, and nothing is corrupted."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID, serialization
from dbos.api.runtime import state
from dbos.error import DBOSException
from tests.databases import path_of
from tests.helpers import rows, status_row, step_names, step_rows


def configured(path: Path | str, **more: Any) -> dict[str, Any]:
    return {
        "name": "test-app",
        "application_version": "v1",
        "executor_id": "test",
        "system_database_url": f"sqlite:///{path}",
        "log_level": "CRITICAL",
        **more,
    }


def launched(config: dict[str, Any]) -> None:
    DBOS(config=config)
    DBOS.launch()


def assert_intact(path: Path | str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


# --- files


@pytest.mark.parametrize(
    "content", [b"this is a text file, not a database\n" * 100, b"\x00" * 8192, b"SQLite format 2\0" * 512]
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "letter.txt"
    path.write_bytes(content)
    with pytest.raises(DBOSException, match=r"letter\.txt") as raised:
        launched(configured(path))
    assert "choose another system_database_url" in str(raised.value)
    assert path.read_bytes() == content


def test_a_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DBOSException, match=str(tmp_path)):
        launched(configured(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_database_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "system.sqlite"
    launched(configured(path))
    DBOS.destroy()
    before = path.read_bytes()
    if os.geteuid() == 0:
        # Permissions do not bind root; SQLite's own read-only mode does.
        config = configured("file:" + str(path) + "?mode=ro&uri=true")
    else:
        path.chmod(0o444)
        tmp_path.chmod(0o555)
        config = configured(path)
    try:
        with pytest.raises(DBOSException, match=r"writable|readonly|read-only"):
            launched(config)
    finally:
        tmp_path.chmod(0o755)
    assert path.read_bytes() == before
    assert_intact(path)


def test_a_damaged_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "system.sqlite"
    launched(configured(path))
    DBOS.destroy()
    content = bytearray(path.read_bytes())
    content[100:3000] = b"\xff" * 2900
    path.write_bytes(content)
    with pytest.raises(DBOSException, match=r"system\.sqlite") as raised:
        launched(configured(path))
    assert "damaged" in str(raised.value)
    assert path.read_bytes()[100:3000] == b"\xff" * 2900


def test_a_database_of_something_else_is_used_beside_its_tables(tmp_path: Path) -> None:
    # An application may keep its own tables in the same file.
    path = tmp_path / "mine.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE customers (name TEXT)")
        connection.execute("INSERT INTO customers VALUES ('alice')")
        connection.commit()
    launched(configured(path))
    DBOS.destroy()
    assert rows(f"sqlite:///{path}", "SELECT name FROM customers") == [{"name": "alice"}]


# --- a full disk


def page_count() -> int:
    writer = writing_connection()
    (count,) = writer.execute("PRAGMA page_count").fetchone()
    return int(count)


def writing_connection() -> sqlite3.Connection:
    assert state.instance is not None
    assert state.instance.engine is not None
    connection: sqlite3.Connection = state.instance.engine.store._db._writer  # type: ignore[attr-defined]
    return connection


def decorate() -> tuple[Any, list[str]]:
    """A workflow of a small step and a large one, and which bodies have run."""
    bodies: list[str] = []

    @DBOS.step(name="small")
    def small() -> int:
        bodies.append("small")
        return 1

    @DBOS.step(name="large")
    def large() -> bytes:
        bodies.append("large")
        return b"x" * 3_000_000

    @DBOS.workflow(name="work")
    def work() -> int:
        return small() + len(large())

    return work, bodies


def test_a_full_disk_is_a_typed_error_and_the_workflow_continues_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "system.sqlite"
    url = f"sqlite:///{path}"
    work, bodies = decorate()
    launched(configured(path))
    with SetWorkflowID("before"):
        assert work() == 3_000_001
    bodies.clear()
    writing_connection().execute(f"PRAGMA max_page_count = {page_count() + 20}")
    with SetWorkflowID("full"), pytest.raises(DBOSException, match=r"full.*[Ff]ree disk space"):
        work()
    assert status_row(url, "full")["status"] == "PENDING"
    assert step_names(url, "full") == {1: "small"}
    DBOS.destroy()
    assert_intact(path)
    launched(configured(path))
    assert DBOS.retrieve_workflow("full").get_result() == 3_000_001
    assert bodies == ["small", "large", "large"]
    DBOS.destroy()
    assert_intact(path)


def test_a_start_on_a_full_disk_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "system.sqlite"

    @DBOS.workflow()
    def work(value: bytes) -> None:
        raise AssertionError("must not run")

    launched(configured(path))
    writing_connection().execute(f"PRAGMA max_page_count = {page_count() + 20}")
    for call in (work, lambda value: DBOS.start_workflow(work, value)):
        with pytest.raises(DBOSException, match="full"):
            call(b"x" * 1_000_000)
    DBOS.destroy()
    assert rows(f"sqlite:///{path}", "SELECT count(*) AS n FROM workflow_status") == [{"n": 0}]
    assert rows(f"sqlite:///{path}", "SELECT count(*) AS n FROM workflow_input") == [{"n": 0}]
    assert_intact(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB; only root can mount one."""
    mount = tmp_path / "disk"
    mount.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(mount)], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"cannot mount a small file system: {made.stderr.strip()}")
    yield mount
    DBOS.destroy()
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_really_full_disk_is_survived(small_disk: Path) -> None:
    path = small_disk / "system.sqlite"
    work, bodies = decorate()
    launched(configured(path))
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 2_500_000)
    with SetWorkflowID("full"), pytest.raises(DBOSException, match=r"[Ff]ree disk space|disk"):
        work()
    DBOS.destroy()
    filler.unlink()
    assert_intact(path)
    launched(configured(path))
    assert DBOS.retrieve_workflow("full").get_result() == 3_000_001
    assert bodies.count("small") == 1
    DBOS.destroy()
    assert_intact(path)


# --- large values


@pytest.mark.slow
def test_a_result_of_a_hundred_megabytes_is_stored_and_read_back_intact(app: type[DBOS], database_url: str) -> None:
    size = 100_000_000

    @DBOS.step()
    def large() -> bytes:
        return os.urandom(1_000_000) * (size // 1_000_000)

    @DBOS.workflow()
    def work() -> bytes:
        return large()

    with SetWorkflowID("large"):
        digest = hashlib.sha256(work()).digest()
    value = DBOS.retrieve_workflow("large").get_result()
    assert len(value) == size
    assert hashlib.sha256(value).digest() == digest
    (step,) = DBOS.list_workflow_steps("large")
    assert hashlib.sha256(step["output"]).digest() == digest
    del value, step
    if database_url.startswith("sqlite"):
        DBOS.destroy()
        assert_intact(path_of(database_url))


def test_values_over_the_limit_are_refused_and_not_written(
    app: type[DBOS], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @DBOS.workflow()
    def takes(value: bytes) -> None:
        raise AssertionError("must not run")

    @DBOS.step()
    def step() -> bytes:
        return b"x" * 10_000

    @DBOS.workflow()
    def in_step() -> str:
        with pytest.raises(DBOSException, match="limit is 5,000 bytes") as raised:
            step()
        return str(raised.value)

    @DBOS.workflow()
    def returns() -> bytes:
        return b"x" * 10_000

    monkeypatch.setattr(serialization, "MAX_PAYLOAD_BYTES", 5_000)
    for call in (takes, lambda value: DBOS.start_workflow(takes, value)):
        with pytest.raises(DBOSException, match=r"takes 13,\d+ bytes.*limit is 5,000 bytes.*object store"):
            call(b"x" * 10_000)
    assert rows(database_url, "SELECT count(*) AS n FROM workflow_status") == [{"n": 0}]
    assert rows(database_url, "SELECT count(*) AS n FROM workflow_input") == [{"n": 0}]
    with SetWorkflowID("step"):
        assert "object store" in in_step()
    (row,) = step_rows(database_url, "step")
    assert row["output"] is None
    with SetWorkflowID("result"), pytest.raises(DBOSException, match="limit is 5,000 bytes"):
        returns()
    assert status_row(database_url, "result")["status"] == "ERROR"
    (output,) = rows(database_url, "SELECT output FROM workflow_output WHERE workflow_uuid = 'result'")
    assert output["output"] is None
    # smaller ones are fine, in the same process
    monkeypatch.setattr(serialization, "MAX_PAYLOAD_BYTES", 50_000)
    assert returns() == b"x" * 10_000
