"""What mypy and pyright infer for the code of users (see user_code.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
USER_CODE = HERE / "user_code.py"


def expected_lines() -> list[int]:
    """The lines that both checkers must refuse."""
    lines = USER_CODE.read_text(encoding="utf-8").splitlines()
    return [number for number, line in enumerate(lines, start=1) if line.endswith("# error")]


def run(*command: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-m", *command, str(USER_CODE)], capture_output=True, text=True, cwd=ROOT, timeout=170
    )
    assert finished.returncode == 1, finished.stdout + finished.stderr
    return finished.stdout


def compare(found: dict[int, str]) -> None:
    expected = expected_lines()
    unexpected = {line: message for line, message in found.items() if line not in expected}
    assert unexpected == {}, "refused, but should be accepted"
    assert sorted(set(expected) - set(found)) == [], "accepted, but should be refused"


def test_the_code_states_both_what_is_inferred_and_what_is_refused() -> None:
    assert len(expected_lines()) > 30
    assert USER_CODE.read_text(encoding="utf-8").count("assert_type(") > 40


@pytest.mark.parametrize("version", ["3.10"])
def test_mypy_infers_what_users_expect(version: str) -> None:
    pytest.importorskip("mypy")
    output = run("mypy", "--config-file=", "--strict", f"--python-version={version}", "--output=json")
    problems = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    elsewhere = [p for p in problems if Path(p["file"]).name != USER_CODE.name]
    assert elsewhere == []
    compare({p["line"]: p["message"] for p in problems if p["severity"] == "error"})


@pytest.mark.parametrize("version", ["3.10"])
def test_pyright_infers_what_users_expect(version: str) -> None:
    pytest.importorskip("basedpyright")
    output = run("basedpyright", "--outputjson", "--level", "error", "--pythonversion", version)
    problems = json.loads(output)["generalDiagnostics"]
    errors = [p for p in problems if p["severity"] == "error"]
    assert errors
    compare({p["range"]["start"]["line"] + 1: p["message"] for p in errors})
