"""Two interpreters with the same program, and fresh databases on both backends.

See `sides` for what a test does with them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from interop import node  # noqa: E402
from interop.sides import Databases, Side  # noqa: E402
from tests.databases import _remove_databases  # noqa: E402

# Importing a fixture here is what makes it known to every test.
__all__ = ["_remove_databases"]

INCUMBENT = "dbos==3.4.0"


@pytest.fixture(scope="session")
def incumbent_python() -> str:
    """Its own environment, made when it is missing; DBOS_INTEROP_PYTHON names another."""
    override = os.environ.get("DBOS_INTEROP_PYTHON")
    if override:
        return override
    home = ROOT / ".venv-incumbent"
    python = home / "bin" / "python"
    installed = python.exists() and _installed(python)
    if not installed:
        venv.create(home, with_pip=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", INCUMBENT], check=True)
    return str(python)


def _installed(python: Path) -> bool:
    code = "from importlib.metadata import version; print(version('dbos'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() == INCUMBENT.partition("==")[2]


@pytest.fixture
def incumbent(incumbent_python: str, tmp_path: Path) -> Side:
    return Side("incumbent", incumbent_python, tmp_path)


@pytest.fixture
def ours(tmp_path: Path) -> Side:
    return Side("ours", sys.executable, tmp_path)


@pytest.fixture(params=["sqlite", "postgres"])
def backend(request: pytest.FixtureRequest) -> str:
    """Runs the test once on each backend."""
    return str(request.param)


@pytest.fixture
def databases(backend: str, tmp_path: Path) -> Databases:
    return Databases(backend, tmp_path)


@pytest.fixture(scope="session")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TypeScript SDK, installed when it is missing; a folder for what its processes say."""
    reason = node.missing()
    if reason is not None:
        pytest.skip(f"The TypeScript SDK {reason}")
    node.install()
    return tmp_path_factory.mktemp("typescript")


@pytest.fixture(scope="session")
def remote(typescript: Path) -> Iterator[node.Remote]:
    """Clients of the TypeScript SDK for any database."""
    with node.remote(typescript) as remote:
        yield remote
