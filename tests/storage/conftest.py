"""The opened store that the contract's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dbos.config import resolve
from dbos.storage.database import SqlStore
from dbos.storage.opening import open_store
from tests.helpers import rows
from tests.storage.making import Rows


@pytest.fixture
def open_another(config: dict[str, Any]) -> Iterator[Callable[[], SqlStore]]:
    """Opens further stores on the test's database, as further processes would; closed after the test."""
    opened: list[SqlStore] = []

    def open_one() -> SqlStore:
        opened.append(open_store(resolve(config)))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_another: Callable[[], SqlStore]) -> SqlStore:
    """A store on a fresh database."""
    return open_another()


@pytest.fixture
def read(database_url: str) -> Rows:
    """Plain SQL on the database of the test, around the store."""
    return lambda sql, *parameters: rows(database_url, sql, *parameters)
