"""A client and an application on one database at the same time, in one process and in several."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from dbos import DBOS, DBOSClient
from tests.helpers import rows

WRITERS = 4
EACH = 60


def test_an_application_and_clients_write_at_the_same_time(client: DBOSClient, database_url: str) -> None:
    """On SQLite these are several writing connections of one process on one file."""
    counted: list[int] = []

    @DBOS.step()
    def double(n: int) -> int:
        counted.append(n)
        return 2 * n

    @DBOS.workflow(name="work")
    def work(n: int) -> int:
        return double(n) + double(n)

    client.register_queue("mail")
    failures: list[BaseException] = []
    results: list[int] = []

    def write(number: int) -> None:
        try:
            with DBOSClient(system_database_url=database_url, application_name="test-app") as own:
                chosen = own if number % 2 else client
                handles = [chosen.enqueue({"workflow_name": "work", "queue_name": "mail"}, n) for n in range(EACH)]
                results.extend(work(n) for n in range(EACH // 4))
                results.extend(handle.get_result(timeout_seconds=60) for handle in handles)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert failures == []
    each = sum(4 * n for n in range(EACH)) + sum(4 * n for n in range(EACH // 4))
    assert sum(results) == WRITERS * each
    assert len(counted) == WRITERS * 2 * (EACH + EACH // 4)
    found = rows(database_url, "SELECT status, count(*) AS n FROM workflow_status GROUP BY status")
    assert found == [{"status": "SUCCESS", "n": WRITERS * (EACH + EACH // 4)}]


async def test_many_async_calls_at_a_time(client: DBOSClient) -> None:
    @DBOS.workflow(name="work")
    async def work(n: int) -> int:
        await asyncio.sleep(0)
        return n

    await client.register_queue_async("mail")

    async def one(n: int) -> Any:
        handle = await client.enqueue_async({"workflow_name": "work", "queue_name": "mail"}, n)
        status = await handle.get_status()
        assert status.name == "work"
        return await handle.get_result(timeout_seconds=60)

    assert sorted(await asyncio.gather(*(one(n) for n in range(100)))) == list(range(100))
    assert len(await client.list_workflows_async(status="SUCCESS")) == 100
