"""Which processes are alive, what the dead ones owned, and how that comes back (see `store.Store.join`)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbos.config import resolve
from dbos.ids import new_process, process_key, tokens_of
from dbos.storage.database import SqlStore
from dbos.storage.lock_file import lock_file_path
from dbos.storage.opening import open_store
from dbos.types import INTERNAL_QUEUE_NAME
from tests.databases import path_of
from tests.helpers import rows, wait_until
from tests.storage.conftest import OpenAnother
from tests.storage.making import Rows, start

# Prints which of the processes named in its arguments are dead.
PROBE = """
import sys
from dbos.ids import new_process
from dbos.storage.lock_file import Presence
print(*Presence(sys.argv[1], new_process()).find_dead(sys.argv[2:]))
"""


def joined(store: SqlStore) -> str:
    name = new_process()
    assert store.join(name)
    return name


def is_dead(store: SqlStore, process: str) -> bool:
    return store.find_dead([process], patient=False) == [process]


# --- alive or dead


def test_a_process_is_alive_from_join_until_close(open_another: OpenAnother) -> None:
    looker, first, second = open_another(), open_another(), open_another()
    joined(looker)
    alive, leaving, unknown = joined(first), joined(second), new_process()
    assert looker.find_dead([alive, leaving, unknown], patient=False) == [unknown]
    second.close()
    wait_until(lambda: is_dead(looker, leaving))
    assert not is_dead(looker, alive)
    assert first.find_dead([leaving, unknown], patient=False) == [leaving, unknown]
    assert looker.find_dead([], patient=False) == []


def test_who_has_not_joined_judges_nobody(open_another: OpenAnother) -> None:
    assert open_another().find_dead([new_process()], patient=False) == []


def test_many_ask_at_once_and_nobody_takes_another_for_the_owner(open_another: OpenAnother) -> None:
    gone, lookers = new_process(), [open_another() for _ in range(3)]
    alive = [joined(looker) for looker in lookers]
    answers: list[list[str]] = []

    def ask(looker: SqlStore) -> None:
        for _ in range(50):
            answers.append(looker.find_dead([*alive, gone], patient=False))

    threads = [threading.Thread(target=ask, args=(looker,)) for looker in lookers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # That one who asks hides the dead for a moment may be; the living are never taken for dead.
    assert {name for answer in answers for name in answer} == {gone}


def test_a_database_in_memory_has_no_other_processes() -> None:
    store = open_store(resolve({"name": "test-app", "system_database_url": "sqlite:///:memory:"}))
    assert not store.join(new_process())
    store.close()


@pytest.mark.empty_database
@pytest.mark.parametrize("backend", ["postgres"])
def test_without_notifications_there_are_no_sessions_to_hold_a_lock(config: dict[str, Any]) -> None:
    store = open_store(resolve({**config, "use_listen_notify": False}))  # type: ignore[typeddict-item]
    assert not store.join(new_process())
    assert store.find_dead([new_process()], patient=False) == []
    store.close()


def test_a_database_is_shared_from_the_moment_somebody_else_comes(open_another: OpenAnother) -> None:
    first = open_another()
    joined(first)
    first.commit([start("own")])
    listener = threading.Thread(target=lambda: first.listen(lambda *_: None))
    listener.start()
    assert not first.is_shared()
    second = open_another()
    joined(second)
    second.commit([start("theirs")])
    second.close()
    # Also when the other one is gone before anybody has looked.
    wait_until(first.is_shared)
    first.close()
    listener.join()


# Joins, leaves a forked child behind, and waits to be killed.
PARENT = """
import os, sys, time
from dbos.config import resolve
from dbos.ids import new_process
from dbos.storage.opening import open_store
store, name = open_store(resolve({"name": "test-app", "system_database_url": sys.argv[1]})), new_process()
assert store.join(name)
child = os.fork()
if child:
    print(name, child, flush=True)
sys.stdin.readline()
"""


def test_a_forked_child_does_not_keep_its_parent_alive(open_another: OpenAnother, database_url: str) -> None:
    looker = open_another()
    joined(looker)
    arguments = [sys.executable, "-W", "ignore", "-c", PARENT, database_url]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        name, child = parent.stdout.readline().split()
        try:
            assert not is_dead(looker, name)
            parent.kill()
            wait_until(lambda: is_dead(looker, name))
            os.kill(int(child), 0)  # it is still there
        finally:
            os.kill(int(child), signal.SIGKILL)


# --- Postgres: connections break


def connection_of(database_url: str, process: str) -> int:
    """The server process that holds the lock of a process."""
    key = process_key(process)
    (row,) = rows(
        database_url,
        "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s AND objid = %s",
        key >> 32,
        key & 0xFFFF_FFFF,
    )
    pid: int = row["pid"]
    return pid


@pytest.mark.parametrize("backend", ["postgres"])
def test_a_connection_that_breaks_is_replaced_at_once(open_another: OpenAnother, database_url: str) -> None:
    looker, store = open_another(), open_another()
    joined(looker)
    process = joined(store)
    broken: list[Exception] = []
    listening = threading.Event()

    def listen() -> None:
        try:
            store.listen(lambda *_: listening.set())
        except Exception as error:
            broken.append(error)

    listener = threading.Thread(target=listen)
    listener.start()
    assert listening.wait(60)
    before = connection_of(database_url, process)
    rows(database_url, "SELECT pg_terminate_backend(%s)", before)
    listener.join(60)
    # The service listens again after a second; the lock is there already.
    assert broken
    assert connection_of(database_url, process) != before
    assert not is_dead(looker, process)


@pytest.mark.parametrize("backend", ["postgres"])
def test_who_has_lost_its_own_lock_judges_nobody(open_another: OpenAnother, database_url: str) -> None:
    store, gone = open_another(), new_process()
    process = joined(store)
    assert is_dead(store, gone)
    rows(database_url, "SELECT pg_terminate_backend(%s)", connection_of(database_url, process))
    wait_until(lambda: not is_dead(store, gone))


@pytest.mark.parametrize("backend", ["postgres"])
def test_the_server_notices_soon_that_a_machine_is_gone(open_another: OpenAnother, database_url: str) -> None:
    store = open_another()
    joined(store)
    connection: psycopg.Connection[Any] = store._db._listening._presence  # type: ignore[attr-defined]
    names = ["tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count"]
    settings = [connection.execute(f"SHOW {name}".encode()).fetchone() for name in names]
    # Over a Unix socket, whose other end cannot be elsewhere, the server shows 0.
    is_local = connection.info.host.startswith("/")
    assert settings == [("0",)] * 3 if is_local else [("5",), ("2",), ("3",)]


# --- SQLite: locks of files


def probe(path: str, *processes: str) -> list[str]:
    """Which of the processes another process takes for dead."""
    answer = subprocess.run(
        [sys.executable, "-c", PROBE, path, *processes], capture_output=True, text=True, check=True, timeout=60
    )
    return answer.stdout.split()


@pytest.mark.parametrize("backend", ["sqlite"])
def test_another_process_sees_who_lives(open_another: OpenAnother, database_url: str) -> None:
    first, second = open_another(), open_another()
    alive, leaving, path = joined(first), joined(second), path_of(database_url)
    assert probe(path, alive, leaving, new_process())[:-1] == []
    second.close()
    assert probe(path, alive, leaving) == [leaving]
    first.close()
    assert sorted(probe(path, alive, leaving)) == sorted([alive, leaving])


@pytest.mark.parametrize("backend", ["sqlite"])
@pytest.mark.parametrize("harm", ["copied", "deleted"])
def test_a_lock_that_got_lost_is_taken_again_with_the_next_look(
    open_another: OpenAnother, database_url: str, tmp_path: Path, harm: str
) -> None:
    store, path = open_another(), path_of(database_url)
    process = joined(store)
    if harm == "copied":
        # Reading the file in this process and closing it gives up the lock, as it would give up SQLite's own.
        shutil.copy(lock_file_path(path), tmp_path / "copy")
    else:
        os.remove(lock_file_path(path))
    assert probe(path, process) == [process]
    assert store.find_dead([process], patient=True) == []
    assert probe(path, process) == []


@pytest.mark.parametrize("backend", ["sqlite"])
def test_the_lock_file_is_empty_and_open_to_whom_the_database_is(open_another: OpenAnother, database_url: str) -> None:
    path = path_of(database_url)
    store = open_another()
    os.chmod(path, 0o660)
    joined(store)
    status = os.stat(lock_file_path(path))
    assert (status.st_size, status.st_mode & 0o777) == (0, 0o660)


@pytest.mark.parametrize("backend", ["sqlite"])
def test_where_files_cannot_be_locked_a_warning_says_what_is_missing(
    open_another: OpenAnother,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    dbos_log: None,
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("dbos.storage.lock_file.lock", refuse)
    assert not open_another().join(new_process())
    assert "No locks available" in caplog.text
    assert "same executor id" in caplog.text


# --- the work of the dead


def test_owners_are_processes_of_running_workflows_of_one_version(store: SqlStore) -> None:
    names = {what: new_process() for what in ("mine", "unowned", "version", "application", "waiting", "done")}
    token = {what: tokens_of(name)() for what, name in names.items()}
    store.commit(
        [
            start("mine", owner_token=token["mine"]),
            start("mine again", owner_token=tokens_of(names["mine"])()),
            start("no application", owner_token=token["unowned"], application_name=None),
            start("version", owner_token=token["version"], application_version="v2"),
            start("application", owner_token=token["application"], application_name="other-app"),
            start("waiting", owner_token=token["waiting"], status="ENQUEUED"),
            start("done", owner_token=token["done"], status="SUCCESS"),
            start("of another release", owner_token=str(uuid.uuid4())),
            start("of no form", owner_token="x" * 36),
            start("of nobody", owner_token=None),
        ]
    )
    assert sorted(store.find_owners("test-app", "v1")) == sorted([names["mine"], names["unowned"]])
    assert store.find_owners("test-app", "v2") == [names["version"]]
    assert store.find_owners("test-app", "v3") == []
    assert len(store.find_owners("test-app", "v1", ["checkout"])) == 2
    assert store.find_owners("test-app", "v1", ["unknown here"]) == []


def test_work_of_the_dead_goes_back_to_its_queue_and_all_else_stays(store: SqlStore, read: Rows) -> None:
    first, second, alive = new_process(), new_process(), new_process()
    new_token = tokens_of(first)
    store.commit(
        [
            start("direct", owner_token=new_token(), executor_id="one"),
            start("queued", owner_token=new_token(), executor_id="two"),
            start("of the second", owner_token=tokens_of(second)(), application_name=None),
            start("alive", owner_token=tokens_of(alive)()),
            start("version", owner_token=new_token(), application_version="v2"),
            start("application", owner_token=new_token(), application_name="other-app"),
            start("done", owner_token=new_token(), status="SUCCESS"),
            start("function", owner_token=new_token(), name="unknown here"),
            start("of another release", owner_token=str(uuid.uuid4())),
        ]
    )
    read(
        "UPDATE workflow_status SET queue_name = 'mail', priority = 3, queue_partition_key = 'key' "
        "WHERE workflow_uuid = 'queued'"
    )
    read("UPDATE workflow_status SET started_at_epoch_ms = 7, created_at = 5, workflow_deadline_epoch_ms = 9")
    before = everything(read)
    queues = store.requeue_dead([first, second], "v1", "test-app", ["checkout", "other"])
    assert sorted(queues) == sorted([INTERNAL_QUEUE_NAME, INTERNAL_QUEUE_NAME, "mail"])
    after = everything(read)
    changed = {"status", "owner_xid", "started_at_epoch_ms", "queue_name", "updated_at"}
    for workflow_id, row in after.items():
        if workflow_id not in ("direct", "queued", "of the second"):
            assert row == before[workflow_id], workflow_id
            continue
        assert (row["status"], row["owner_xid"], row["started_at_epoch_ms"]) == ("ENQUEUED", None, None)
        assert row["queue_name"] == ("mail" if workflow_id == "queued" else INTERNAL_QUEUE_NAME)
        assert {c: v for c, v in row.items() if c not in changed} == {
            c: v for c, v in before[workflow_id].items() if c not in changed
        }
    assert store.requeue_dead([first, second], "v1", "test-app", ["checkout"]) == []
    assert everything(read) == after


def test_a_launch_leaves_to_the_living_what_they_own(store: SqlStore, read: Rows) -> None:
    dead, alive = new_process(), new_process()
    store.commit(
        [
            start("dead", owner_token=tokens_of(dead)()),
            start("alive", owner_token=tokens_of(alive)()),
            start("of another release", owner_token=str(uuid.uuid4())),
            start("of nobody", owner_token=None),
            start("dead elsewhere", owner_token=tokens_of(dead)(), executor_id="other"),
        ]
    )
    taken = ["dead", "of another release", "of nobody"]
    assert sorted(store.requeue_pending("test", "v1", "test-app", [dead])) == taken
    assert store.requeue_pending("test", "v1", "test-app", []) == []
    # Recovery on demand asks nobody.
    assert store.requeue_pending("test", "v1", "test-app") == ["alive"]


def everything(read: Rows) -> dict[str, dict[str, Any]]:
    return {row["workflow_uuid"]: row for row in read("SELECT * FROM workflow_status")}
