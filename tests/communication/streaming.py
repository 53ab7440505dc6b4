"""What the tests of streams share."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.types import StreamPage
from tests.helpers import rows

MARKER = '"__DBOS_STREAM_CLOSED__"'


def entries(database_url: str, workflow_id: str = "w") -> list[tuple[str, int, str, str, int]]:
    """The stored entries of a workflow: key, offset, value, format, step id."""
    sql = 'SELECT * FROM streams WHERE workflow_uuid = %s ORDER BY key, "offset"'
    found = rows(database_url, sql, workflow_id)
    return [(r["key"], r["offset"], r["value"], r["serialization"], r["function_id"]) for r in found]


def write(workflow_id: str, *values: Any, close: bool = False) -> None:
    """A finished workflow with these values in its stream k."""

    @DBOS.workflow(name="writer")
    async def writer() -> None:
        for value in values:
            await DBOS.write_stream_async("k", value)
        if close:
            await DBOS.close_stream_async("k")

    with SetWorkflowID(workflow_id):
        DBOS.start_workflow(writer).get_result()


def engine_of(app: type[DBOS]) -> Any:
    return app(config=None).engine


def count_reads(monkeypatch: pytest.MonkeyPatch, app: type[DBOS]) -> list[int]:
    """The offsets at which streams are read in the store from now on."""
    store, asked = engine_of(app).store, list[int]()
    read_stream = store.read_stream

    def counted(workflow_id: str, key: str, offset: int, limit: int) -> StreamPage:
        asked.append(offset)
        page: StreamPage = read_stream(workflow_id, key, offset, limit)
        return page

    monkeypatch.setattr(store, "read_stream", counted)
    return asked


def waiting_readers(app: type[DBOS]) -> int:
    """How many readers sleep."""
    return sum(len(feed._waiters) for feed in engine_of(app).feeds._feeds.values())


def insert(database_url: str, offset: int, value: str, *, workflow_id: str = "w", key: str = "k") -> None:
    """An entry by another process, which does not announce it."""
    sql = 'INSERT INTO streams (workflow_uuid, key, value, "offset", serialization) VALUES (%s, %s, %s, %s, %s)'
    rows(database_url, sql, workflow_id, key, value, offset, "portable_json")
