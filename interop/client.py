"""A client and its application, for two interpreters: ours, and one with PyPI `dbos`.

    python client.py <database url> make      make the system database, run nothing
    python client.py <database url> enqueue   a client leaves rows of every kind, nobody runs them
    python client.py <database url> serve     run an application until the input ends
    python client.py <database url> use       use an application that runs elsewhere

Prints one JSON value.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import datetime
from typing import Any

from dbos import DBOS, DBOSClient, DebouncerClient, WorkflowSerializationFormat

URL, ACTION = sys.argv[1:]
PORTABLE = WorkflowSerializationFormat.PORTABLE


@DBOS.step(name="double")
def double(n: int) -> int:
    return 2 * n


@DBOS.workflow(name="add")
def add(first: int, second: int = 1) -> int:
    return double(first) + second


@DBOS.workflow(name="fail")
def fail(text: str) -> None:
    raise ValueError(text)


@DBOS.workflow(name="describe", serialization_type=PORTABLE)
def describe(*numbers: int, name: str = "n") -> dict[str, Any]:
    return {"sum": sum(numbers), "name": name}


@DBOS.workflow(name="tick")
def tick(scheduled_at: datetime, context: Any) -> Any:
    return context


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def launch(name: str = "interop") -> None:
    DBOS(config={"name": name, "application_version": "v1", "executor_id": "served", "system_database_url": URL})
    DBOS.launch()


def attempt(call: Any) -> list[str]:
    try:
        return ["returned", repr(call())]
    except Exception as error:
        return [type(error).__name__]


def enqueue(client: DBOSClient) -> Any:
    """Rows of every kind; what was refused, and how."""
    base: Any = {"workflow_name": "add", "queue_name": "nobody-serves-this"}
    client.enqueue({**base, "workflow_id": "plain"}, 1, second=2)
    client.enqueue(
        {
            **base,
            "workflow_id": "full",
            "app_version": "v9",
            "workflow_timeout": 2.5,
            "priority": 5,
            "queue_partition_key": "p",
            "authenticated_user": "alice",
            "authenticated_roles": ["admin", "user"],
            "class_name": "Shop",
            "instance_name": "north",
            "attributes": {"a": [1, None]},
            "application_name": "another",
        },
        1,
    )
    client.enqueue({**base, "workflow_id": "delayed", "delay_seconds": 1000, "deduplication_id": "d"}, 1)
    client.enqueue({**base, "workflow_id": "portable", "serialization_type": PORTABLE}, 1, second=2)
    client.enqueue({**base, "workflow_id": "none-yet", "authenticated_roles": []})
    client.cancel_workflow("none-yet")
    client.register_queue("mail", global_concurrency=3, limiter={"limit": 5, "period": 1.5})
    client.register_queue("parts", partition_concurrency=1, application_name="another")
    client.create_schedule(
        schedule_name="yearly",
        workflow_name="tick",
        schedule="0 0 1 1 *",
        context={"a": 1},
        cron_timezone="Europe/Berlin",
        queue_name="mail",
        automatic_backfill=True,
    )
    client.apply_schedules(
        [{"schedule_name": "applied", "workflow_name": "tick", "schedule": "0 3 * * *", "application_name": None}]
    )
    client.pause_schedule("applied")
    ids = [
        handle.workflow_id for handle in client.backfill_schedule("yearly", datetime(2025, 1, 2), datetime(2026, 6, 1))
    ]
    debouncer: Any = DebouncerClient(client, {"workflow_name": "add", "queue_name": "mail", "workflow_id": "bounced"})
    debouncer.debounce("k", 1000, 1)
    debouncer.debounce("k", 2000, 2)
    refused = [
        attempt(lambda: client.enqueue({**base, "workflow_id": "x", "deduplication_id": "d"})),
        attempt(lambda: client.enqueue({**base, "workflow_id": "plain", "workflow_id_reuse_policy": "reject"})),
        attempt(lambda: client.enqueue({**base, "workflow_id": "plain", "workflow_name": "other"})),
        attempt(lambda: client.enqueue({**base, "workflow_id": " "})),
        attempt(lambda: client.enqueue({**base, "priority": 0})),
        attempt(lambda: client.enqueue({"workflow_name": "add"})),  # type: ignore[typeddict-item]
        attempt(lambda: client.enqueue({**base, "duplication_policy": "return-existing"})),
        attempt(lambda: client.enqueue({**base, "shard_key": "s"})),
        attempt(lambda: client.retrieve_workflow("absent")),
        attempt(lambda: client.resume_workflows(["plain", "absent"])),
        attempt(lambda: client.wait_first([])),
        attempt(lambda: client.register_queue("mail", on_conflict="update_if_latest_version")),  # type: ignore[arg-type]
        attempt(lambda: client.register_queue("parts")),
        attempt(lambda: client.trigger_schedule("absent")),
        attempt(lambda: client.rename_application("", "new-name")),
        attempt(lambda: client.rename_application("interop", "interop")),
        attempt(lambda: client.rename_application("absent", "new-name")),
        attempt(lambda: client.rename_application("interop", "new-name", batch_size=0)),
        attempt(
            lambda: DebouncerClient(client, {"workflow_name": "add", "queue_name": "mail", "priority": 1}).debounce(
                "j", 1
            )
        ),
    ]
    return {"ids": ids, "refused": refused}


def use(client: DBOSClient) -> Any:
    """What an application elsewhere answers; nothing in it depends on who asks whom."""
    found: dict[str, Any] = {}
    queue = client.register_queue("mail", worker_concurrency=7)
    found["queue"] = [queue.name, queue.application_name, queue.worker_concurrency]
    base: Any = {"workflow_name": "add", "queue_name": "mail"}
    found["result"] = client.enqueue({**base, "workflow_id": "one"}, 3, second=4).get_result()
    found["again"] = client.enqueue({**base, "workflow_id": "one"}, 100).get_result()
    found["failure"] = attempt(client.enqueue({"workflow_name": "fail", "queue_name": "mail"}, "it failed").get_result)
    portable: Any = {"workflow_name": "describe", "queue_name": "mail", "serialization_type": PORTABLE}
    found["portable"] = client.enqueue(portable, 1, 2, name="é").get_result()
    status = client.retrieve_workflow("one").get_status()
    found["status"] = [status.status, status.name, repr(status.input), status.output, status.queue_name]
    found["status"] += [status.app_version, status.executor_id, status.recovery_attempts]
    found["steps"] = [
        [step["function_id"], step["function_name"], step["output"]] for step in client.list_workflow_steps("one")
    ]
    delayed = client.enqueue({**base, "workflow_id": "late", "delay_seconds": 1000}, 1)
    client.cancel_workflow("late")
    found["cancelled"] = [delayed.get_status().status, attempt(delayed.get_result)]
    found["resumed"] = client.resume_workflow("late", queue_name="mail").get_result()
    client.enqueue({**base, "workflow_id": "moved", "delay_seconds": 1000}, 1)
    client.set_workflow_delay("moved", delay_seconds=0)
    found["moved"] = client.retrieve_workflow("moved").get_result()
    debouncer: Any = DebouncerClient(client, base)
    handles = [debouncer.debounce("k", 1000, 1), debouncer.debounce("k", 0, 20)]
    found["debounced"] = [handle.get_result() for handle in handles]
    client.create_schedule(schedule_name="yearly", workflow_name="tick", schedule="0 0 1 1 *", context=[1, "c"])
    found["triggered"] = client.trigger_schedule("yearly").get_result()
    backfilled = client.backfill_schedule("yearly", datetime(2025, 6, 1), datetime(2026, 6, 1))
    found["backfilled"] = [[handle.workflow_id, handle.get_result()] for handle in backfilled]
    found["schedules"] = [schedule["schedule_name"] for schedule in client.list_schedules()]
    found["listed"] = sorted(status.workflow_id for status in client.list_workflows(name="add", status="SUCCESS"))[-2:]
    found["versions"] = [version["version_name"] for version in client.list_application_versions()]
    first = client.wait_first([client.retrieve_workflow("one"), client.retrieve_workflow("late")])
    found["first"] = first.workflow_id in ("one", "late")
    found["async"] = asyncio.run(use_async(client))
    return found


async def use_async(client: DBOSClient) -> Any:
    handles = await asyncio.gather(
        *(client.enqueue_async({"workflow_name": "add", "queue_name": "mail"}, n) for n in range(5))
    )
    return [await handle.get_result() for handle in handles]


def main() -> Any:
    if ACTION == "make":
        launch()
        return None
    if ACTION == "serve":
        launch()
        say("ready")
        sys.stdin.read()
        return None
    client = DBOSClient(system_database_url=URL, application_name="interop")
    return enqueue(client) if ACTION == "enqueue" else use(client)


say(json.dumps(main()))
# Without waiting for threads.
os._exit(0)
