"""Every ```python block of the README and the guide runs, on SQLite and on Postgres.

The blocks of one page make one program, in their order. A block whose first line is a comment with a file name
(`# counting.py`) is that file instead, beside the program. A block after the line `<!-- sqlite -->` or
`<!-- postgres -->` is part of the program on that backend only.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_surface import NOT_YET_EXPORTED, NOT_YET_IN_CLIENT, NOT_YET_IN_DBOS

ROOT = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(r"^(?:<!-- (?P<only>\w+) -->\n)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (?P<name>\w+\.py)\n")
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s#]+)?(?:#(?P<anchor>[^)\s]+))?\)")
RUN_LIMIT_SECONDS = 150


def blocks(page: str, backend: str) -> list[tuple[str | None, str]]:
    """File name, or None for the program, and code; padded so that line numbers in errors are those of the page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found: list[tuple[str | None, str]] = []
    for match in BLOCK.finditer(text):
        if match["only"] not in (None, backend):
            continue
        file = FILE.match(match["code"])
        padding = "" if file else "\n" * text.count("\n", 0, match.start("code"))
        found.append((file["name"] if file else None, padding + match["code"]))
    return found


def program(page: str, backend: str, directory: Path) -> Path | None:
    """Write the files of a page; its program, if it has one."""
    parts: list[str] = []
    for name, code in blocks(page, backend):
        if name is not None:
            (directory / name).write_text(code, encoding="utf-8")
        else:
            so_far = "".join(parts).count("\n")
            # The padding counts from the top of the page, the parts before take some of it.
            parts.append(code[so_far:] if code[:so_far].strip() == "" else code)
    if not parts:
        return None
    path = directory / "page.py"
    path.write_text("".join(parts), encoding="utf-8")
    return path


def has_program(page: str) -> bool:
    return any(name is None for name, _ in blocks(page, "sqlite"))


@pytest.mark.parametrize("page", [page for page in PAGES if has_program(page)])
def test_the_examples_of_a_page_run(page: str, backend: str, database_url: str, tmp_path: Path) -> None:
    path = program(page, backend, tmp_path)
    assert path is not None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DBOS__")}
    environment.pop("DATABASE_URL", None)
    if backend == "postgres":
        # Without the variable the examples use their SQLite file.
        environment["DATABASE_URL"] = database_url
    result = subprocess.run(
        [sys.executable, "-W", "error", path.name],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_SECONDS,
        check=False,
    )
    assert result.returncode == 0, f"{page} (line numbers are those of the page):\n{result.stdout}{result.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    missing = []
    for match in LINK.finditer(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        target, anchor = match["target"], match["anchor"]
        if target is not None and "://" in target:
            continue
        path = ROOT / page if target is None else (ROOT / page).parent / target
        if not path.exists() or (anchor is not None and anchor not in anchors(path)):
            missing.append(match[0])
    assert not missing


def anchors(path: Path) -> set[str]:
    """The anchors of the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_pages_of_the_guide_have_examples() -> None:
    without = [page for page in PAGES if page.startswith("docs/guide/") and not has_program(page)]
    assert without == []
    assert len(PAGES) > 15


def test_the_readme_names_exactly_what_is_missing() -> None:
    _, _, text = (ROOT / "README.md").read_text(encoding="utf-8").partition("do not exist yet:")
    table, _, _ = text.partition("(With each name")
    listed = {name for row in table.splitlines() for name in re.findall(r"`(\w+)`", row.partition(" | ")[2])}
    missing = {name.removesuffix("_async") for name in NOT_YET_IN_DBOS | NOT_YET_IN_CLIENT} | NOT_YET_EXPORTED
    assert listed == missing
