"""Renaming an application (04 R534, 05 R103)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, SetWorkflowID
from dbos.error import DBOSException
from dbos.storage.store import StoreUnavailable
from tests.helpers import NOWHERE, rows

TABLES = ("workflow_status", "operation_outputs", "queues", "workflow_schedules", "application_versions")


@pytest.fixture
def client(config: dict[str, Any], database_url: str) -> Iterator[DBOSClient]:
    """What an application has left that does not run any more: one of each, of its own, of another and of nobody."""
    DBOS(config=config)

    @DBOS.step()
    def step() -> None:
        pass

    @DBOS.workflow(name="w")
    def w() -> None:
        step()
        step()

    DBOS.launch()
    for n in range(7):
        with SetWorkflowID(f"done-{n}"):
            w()
    DBOS.destroy(destroy_registry=True)
    with DBOSClient(system_database_url=database_url) as made:
        for application in ("test-app", "other-app", None):
            suffix = application or "unowned"
            made.register_queue(f"q-{suffix}", application_name=application)
            made.create_schedule(
                schedule_name=f"s-{suffix}", workflow_name="w", schedule="0 0 1 1 *", application_name=application
            )
            options: Any = {"workflow_name": "w", "queue_name": NOWHERE, "application_name": application}
            made.enqueue({**options, "workflow_id": f"waiting-{suffix}"})
            made.enqueue({**options, "workflow_id": f"delayed-{suffix}", "delay_seconds": 600})
            made.enqueue({**options, "workflow_id": f"cancelled-{suffix}"})
            made.cancel_workflow(f"cancelled-{suffix}")
        yield made


def owners(database_url: str) -> dict[str, dict[str | None, int]]:
    found: dict[str, dict[str | None, int]] = {}
    for table in TABLES:
        query = f"SELECT application_name AS owner, count(*) AS n FROM {table} GROUP BY application_name"
        found[table] = {row["owner"]: row["n"] for row in rows(database_url, query)}
    return found


RENAMED = {"queues": 1, "schedules": 1, "versions": 1, "workflows": 10, "steps": 14}


@pytest.mark.parametrize("batch_size", [3, None])
def test_everything_of_an_application_gets_the_new_name(
    client: DBOSClient, database_url: str, batch_size: int | None
) -> None:
    """04 R534, 05 R103."""
    before = owners(database_url)
    assert client.rename_application("test-app", "new-app", batch_size=batch_size) == RENAMED
    after = owners(database_url)
    for table in TABLES:
        assert after[table].pop("new-app") == before[table].pop("test-app")
    assert after == before


def test_what_belongs_to_nobody_is_adopted_if_so_wanted(client: DBOSClient, database_url: str) -> None:
    """04 R534."""
    counts = client.rename_application("test-app", "new-app", adopt_unclaimed_rows=True)
    assert counts == {"queues": 2, "schedules": 2, "versions": 1, "workflows": 13, "steps": 14}
    assert all(set(found) <= {"new-app", "other-app"} for found in owners(database_url).values())


def test_only_what_belongs_to_nobody_is_adopted_without_an_old_name(client: DBOSClient, database_url: str) -> None:
    """04 R534."""
    with pytest.raises(DBOSException, match="adopt_unclaimed_rows"):
        client.rename_application(None, "new-app")
    counts = client.rename_application(None, "new-app", adopt_unclaimed_rows=True)
    assert counts == {"queues": 1, "schedules": 1, "versions": 0, "workflows": 3, "steps": 0}
    assert owners(database_url)["queues"] == {"new-app": 1, "test-app": 1, "other-app": 1}


MEANINGLESS = [
    ("", "new-app", "old application name"),
    ("test-app", "test-app", "already"),
    ("test-app", "Not Valid", "Not Valid"),
    ("test-app", "ab", "'ab'"),
]


def test_arguments_without_meaning_are_refused(client: DBOSClient, database_url: str) -> None:
    """04 R534, 05 R103."""
    before = owners(database_url)
    for old_name, new_name, message in MEANINGLESS:
        with pytest.raises(DBOSException, match=message):
            client.rename_application(old_name, new_name)
    sizes: list[Any] = [0, -1, "many", True]
    for batch_size in sizes:
        with pytest.raises(ValueError, match="batch_size"):
            client.rename_application("test-app", "new-app", batch_size=batch_size)
    assert owners(database_url) == before


def test_renaming_what_nobody_has_does_nothing_and_warns(
    client: DBOSClient, database_url: str, caplog: pytest.LogCaptureFixture, dbos_log: None
) -> None:
    """05 R103; also the end of a renaming that was interrupted after its last transaction."""
    before = owners(database_url)
    assert client.rename_application("nobody", "new-app") == dict.fromkeys(RENAMED, 0)
    assert owners(database_url) == before
    assert "belongs to application 'nobody'" in caplog.text


class Interrupted(BaseException):
    """The process dies here."""


def test_an_interrupted_renaming_is_completed_by_repeating_it(
    client: DBOSClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """05 R103: after each of its transactions, and in each of them."""
    store: Any = client._session.core.store
    real = store._db.transaction
    complete: dict[str, dict[str | None, int]] | None = None
    for dies_at in range(200):
        calls = 0

        def transaction(dies_at: int = dies_at) -> Any:
            nonlocal calls
            calls += 1
            if calls > dies_at:
                raise Interrupted()
            return real()

        old, new = ("test-app", "new-app") if dies_at % 2 == 0 else ("new-app", "test-app")
        monkeypatch.setattr(store._db, "transaction", transaction)
        finished = False
        try:
            client.rename_application(old, new, batch_size=3)
            finished = True
        except Interrupted:
            pass
        monkeypatch.setattr(store._db, "transaction", real)
        if not finished:
            client.rename_application(old, new, batch_size=3)
        assert all(old not in found for found in owners(database_url).values()), dies_at
        if finished:
            complete = owners(database_url)
            break
    assert complete is not None
    assert dies_at > 8


def test_a_renaming_whose_answer_is_lost_goes_on(
    client: DBOSClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """04 R4, 05 R103: the transaction has committed, nobody knows."""
    store: Any = client._session.core.store
    rename = store.rename_ended
    lost: list[Any] = []

    def lose_the_first(*args: Any, **kwargs: Any) -> Any:
        answer = rename(*args, **kwargs)
        if not lost:
            lost.append(answer)
            raise StoreUnavailable("the answer is lost")
        return answer

    monkeypatch.setattr(store, "rename_ended", lose_the_first)
    client.rename_application("test-app", "new-app", batch_size=3)
    assert lost
    assert all("test-app" not in found for found in owners(database_url).values())


async def test_renaming_from_async_code(client: DBOSClient, caplog: pytest.LogCaptureFixture, dbos_log: None) -> None:
    """04 section 7.2."""
    assert await client.rename_application_async("test-app", "new-app", batch_size=2) == RENAMED
    assert not caplog.records
    client.rename_application("new-app", "test-app")
    assert "rename_application_async" in caplog.text


def test_the_renamed_application_goes_on(client: DBOSClient, config: dict[str, Any], database_url: str) -> None:
    """05 R103: what waited is run under the new name."""
    client.rename_application("test-app", "new-app")

    @DBOS.workflow(name="w")
    def w() -> str:
        return "ran"

    DBOS(config={**config, "name": "new-app"})
    DBOS.launch()
    try:
        client.register_queue(NOWHERE, application_name="new-app")
        assert client.retrieve_workflow("waiting-test-app").get_result() == "ran"
    finally:
        DBOS.destroy(destroy_registry=True)
