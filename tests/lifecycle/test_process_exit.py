"""How a process ends: without destroy, killed, interrupted (01 R61-R63). Real child processes."""

from __future__ import annotations

import itertools
import signal
import subprocess
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dbos import DBOS
from tests.helpers import rows, status_row, step_names
from tests.programs import Process, StartProgram

# What every program below begins with.
PREAMBLE = """
import asyncio, os, signal, sys, threading, time
from dbos import DBOS, SetWorkflowID

DBOS(config={
    "name": "test-app", "application_version": "v1", "executor_id": "test", "log_level": "WARNING",
    "system_database_url": sys.argv[1],
})

@DBOS.step()
def first() -> int:
    return 1

PROGRAM = __file__

def say(word: str) -> None:
    print(word, flush=True)

"""

Start = Callable[[str], Process]


@pytest.fixture
def start(database_url: str, tmp_path: Path, start_program: StartProgram) -> Start:
    """Starts a program on the database of the test; killed at the end if it still runs."""
    numbers = itertools.count()

    def start_one(body: str) -> Process:
        path = tmp_path / f"program_{next(numbers)}.py"
        path.write_text(PREAMBLE + textwrap.dedent(body))
        return start_program(path, database_url, errors=subprocess.PIPE)

    return start_one


def read_word(process: Process, word: str) -> None:
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    if line != word:
        process.kill()
        raise AssertionError(f"expected {word!r}, got {line!r}: {process.communicate()[1]}")


def test_a_program_that_only_constructs_ends_silently(start: Start) -> None:
    # 01 R61
    process = start("")
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0


def test_a_program_that_forgets_destroy_ends_silently(start: Start, database_url: str) -> None:
    # 01 R61
    process = start("""
        @DBOS.workflow()
        def work() -> int:
            return first()

        DBOS.launch()
        with SetWorkflowID("done"):
            work()
    """)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    assert status_row(database_url, "done")["status"] == "SUCCESS"


def test_running_sync_workflows_finish_when_the_main_thread_ends(start: Start, database_url: str) -> None:
    # 01 R62
    process = start("""
        def wait_until_main_has_ended() -> None:
            while True:
                frame = sys._current_frames()[threading.main_thread().ident]
                while frame.f_back is not None:
                    frame = frame.f_back
                if frame.f_code.co_filename != PROGRAM:
                    return
                time.sleep(0.005)

        @DBOS.step()
        def second() -> int:
            return 2

        @DBOS.workflow()
        def work() -> int:
            value = first()
            wait_until_main_has_ended()
            return value + second()

        DBOS.launch()
        with SetWorkflowID("running"):
            DBOS.start_workflow(work)
    """)
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    assert status_row(database_url, "running")["status"] == "SUCCESS"
    assert step_names(database_url, "running") == {1: "first", 2: "second"}


def test_async_workflows_die_with_the_process_and_stay_pending(start: Start, database_url: str) -> None:
    # 01 R62
    process = start("""
        entered = threading.Event()

        @DBOS.workflow()
        async def work() -> None:
            first()
            entered.set()
            await asyncio.Event().wait()

        DBOS.launch()
        with SetWorkflowID("async"):
            DBOS.start_workflow(work)
        entered.wait()
    """)
    _, complaints = process.communicate(timeout=60)
    assert "Traceback" not in complaints
    assert process.returncode == 0
    assert status_row(database_url, "async")["status"] == "PENDING"
    assert step_names(database_url, "async") == {1: "first"}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_killed_process_leaves_pending_work_that_the_next_launch_continues(
    start: Start, config: dict[str, Any], how: signal.Signals
) -> None:
    # 01 R63, 02 R153-R156
    url = config["system_database_url"]
    process = start("""
        @DBOS.step()
        def second() -> int:
            say("in second")
            threading.Event().wait()

        @DBOS.workflow(name="work")
        def work() -> int:
            return first() + second()

        DBOS.launch()
        with SetWorkflowID("killed"):
            work()
    """)
    read_word(process, "in second")
    process.send_signal(how)
    assert process.wait(60) == -how
    assert status_row(url, "killed")["status"] == "PENDING"
    assert step_names(url, "killed") == {1: "first"}
    calls: list[str] = []

    @DBOS.step(name="first")
    def first() -> int:
        calls.append("first")
        return 1

    @DBOS.step(name="second")
    def second() -> int:
        calls.append("second")
        return 2

    @DBOS.workflow(name="work")
    def work() -> int:
        return first() + second()

    DBOS(config=config)
    DBOS.launch()
    assert DBOS.retrieve_workflow("killed").get_result() == 3
    assert calls == ["second"]
    row = status_row(url, "killed")
    assert row["recovery_attempts"] == 2
    DBOS.destroy(destroy_registry=True)


def test_an_interrupted_direct_call_stays_pending(start: Start, database_url: str) -> None:
    # 01 R63, 02 R69: KeyboardInterrupt is not an outcome
    process = start("""
        @DBOS.step()
        def second() -> int:
            say("in second")
            while True:
                time.sleep(0.01)

        @DBOS.workflow()
        def work() -> int:
            return first() + second()

        # As in a terminal: a test run in the background hands SIGINT down ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        DBOS.launch()
        with SetWorkflowID("interrupted"):
            work()
    """)
    read_word(process, "in second")
    process.send_signal(signal.SIGINT)
    _, complaints = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert complaints.rstrip().endswith("KeyboardInterrupt")
    assert status_row(database_url, "interrupted")["status"] == "PENDING"
    assert step_names(database_url, "interrupted") == {1: "first"}


def test_destroying_in_a_signal_handler_drains_and_ends_the_process(start: Start, database_url: str) -> None:
    # 01 R126: graceful stop is the duty of the application
    process = start("""
        release = threading.Event()

        @DBOS.workflow()
        def work() -> str:
            say("running")
            release.wait()
            return "finished"

        def stop(number: int, frame: object) -> None:
            threading.Timer(0, release.set).start()
            DBOS.destroy(workflow_completion_timeout_sec=60)
            sys.exit(0)

        signal.signal(signal.SIGTERM, stop)
        DBOS.launch()
        with SetWorkflowID("drained"):
            DBOS.start_workflow(work)
        while True:
            time.sleep(0.01)
    """)
    read_word(process, "running")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert status_row(database_url, "drained")["status"] == "SUCCESS"


@pytest.mark.empty_database
def test_two_programs_launch_on_an_empty_database_at_the_same_moment(start: Start, database_url: str) -> None:
    # 01 R134
    body = """
        say("ready")
        sys.stdin.readline()
        DBOS.launch()
        DBOS.destroy()
        say("done")
    """
    processes = [start(body) for _ in range(3)]
    for process in processes:
        read_word(process, "ready")
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        output, complaints = process.communicate(timeout=90)
        assert (output, process.returncode) == ("done\n", 0), complaints
    assert rows(database_url, "SELECT count(*) AS n FROM application_versions") == [{"n": 1}]


def test_a_fork_of_the_process_that_launches_after_it_works(start: Start, database_url: str) -> None:
    # 01 R119: launch once per worker process, after fork
    process = start("""
        @DBOS.workflow()
        def work() -> int:
            return first()

        child = os.fork()
        DBOS.launch()
        with SetWorkflowID("parent" if child else "child"):
            work()
        DBOS.destroy()
        if child:
            os.waitpid(child, 0)
    """)
    process.communicate(timeout=90)
    assert process.returncode == 0
    assert status_row(database_url, "parent")["status"] == "SUCCESS"
    assert status_row(database_url, "child")["status"] == "SUCCESS"
