"""One program for two interpreters: ours, and one with PyPI `dbos`.

    python program.py <database url> run                    run every workflow to its end
    python program.py <database url> leave                  run those that hold, kill this process in the middle
    python program.py <database url> enqueue                put workflows on queues, run none of them
    python program.py <database url> schedule               make schedules, run none of them
    python program.py <database url> tick                   launch, wait until a schedule has fired and its run ended
    python program.py <database url> debounce               delay workflows under keys
    python program.py <database url> bounce                 call for the same keys, let the workflows run
    python program.py <database url> finish <id>...         launch, wait for these workflows
    python program.py <database url> resume <id>            resume this workflow, wait for it
    python program.py <database url> list                   list workflows by every filter, run none
    python program.py <database url> read <id>...           say everything the API tells about these workflows

Prints one JSON value.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import time
from datetime import datetime
from typing import Any

from dbos import (
    DBOS,
    DBOSConfiguredInstance,
    DBOSContextSetAuth,
    Debouncer,
    PortableWorkflowError,
    SetEnqueueOptions,
    SetWorkflowAttributes,
    SetWorkflowID,
    SetWorkflowTimeout,
    WorkflowSerializationFormat,
    error,
)

DBOSStreamTimeoutError = error.DBOSStreamTimeoutError

URL, ACTION, *IDS = sys.argv[1:]
# These workflows wait in a step where a process that is to die has arrived in all of them.
HOLDING_IDS = ["checkout", "checkout-async", "waiting-for-child", "debouncing", "streaming"]

executed: list[str] = []
_holding = 0
_lock = threading.Lock()


def note() -> None:
    executed.append(f"{DBOS.workflow_id} {DBOS.step_id}")


def arrive() -> bool:
    """Whether to stay here: in a process that is to die, which it does when everybody has arrived."""
    global _holding
    if ACTION != "leave":
        return False
    with _lock:
        _holding += 1
        if _holding == len(HOLDING_IDS):
            os.kill(os.getpid(), signal.SIGKILL)
    return True


class OrderError(Exception):
    def __init__(self, order: str, reason: str) -> None:
        super().__init__(order, reason)
        self.order = order


@DBOS.step()
def reserve(item: str, count: int = 1) -> dict[str, Any]:
    note()
    return {"item": item, "count": count, "ratio": 0.5, "tags": ("a", b"b"), "none": None, "text": "naïve ☃"}


@DBOS.step(name="charge-card")
async def charge(amount: int) -> int:
    note()
    return amount * 2


@DBOS.step()
def refuse(item: str) -> None:
    note()
    raise OrderError(item, "out of stock")


@DBOS.step(retries_allowed=True, max_attempts=2, interval_seconds=0.01)
def never() -> None:
    note()
    raise ValueError("never")


@DBOS.step()
def hold() -> str:
    note()
    if arrive():
        threading.Event().wait()
    return "held"


@DBOS.step()
async def hold_async() -> str:
    note()
    if arrive():
        await asyncio.Event().wait()
    return "held"


@DBOS.workflow()
def child(n: int) -> int:
    return int(reserve("c", n)["count"]) + 1


@DBOS.workflow(name="child.async")
async def child_async(n: int) -> int:
    return await charge(n) + 1


@DBOS.workflow()
def holding_child() -> str:
    return hold()


@DBOS.workflow()
def waiting_for_child() -> str:
    reserve("before")
    return holding_child() + "!"


@DBOS.workflow()
def checkout(item: str, *, count: int = 2) -> dict[str, Any]:
    reserved = reserve(item, count=count)
    DBOS.sleep(0.02)
    total = child(count)
    try:
        refuse(item)
    except OrderError as error:
        reserved["refused"] = error.args
    hold()
    handle = DBOS.start_workflow(child_async, count)
    total += handle.get_result()
    try:
        never()
    except Exception as error:
        reserved["never"] = type(error).__name__
    total += DBOS.run_step({"name": "inline"}, lambda: 7)
    return {**reserved, "total": total}


async def seven() -> int:
    return 7


@DBOS.workflow()
async def checkout_async(item: str, *, count: int = 2) -> dict[str, Any]:
    reserved = reserve(item, count=count)
    await DBOS.sleep_async(0.02)
    total = await child_async(count)
    try:
        refuse(item)
    except OrderError as error:
        reserved["refused"] = error.args
    await hold_async()
    handle = await DBOS.start_workflow_async(child_async, count)
    total += await handle.get_result()
    total += await DBOS.run_step_async({"name": "inline"}, seven)
    return {**reserved, "total": total}


@DBOS.workflow()
def failing(item: str) -> None:
    refuse(item)


@DBOS.workflow()
def exhausted() -> None:
    never()


@DBOS.workflow(serialization_type=WorkflowSerializationFormat.PORTABLE)
def portable(numbers: list[int], *, name: str = "n") -> dict[str, Any]:
    return {"sum": sum(numbers), "name": name, "step": reserve("p")["count"], "null": None}


@DBOS.workflow(serialization_type=WorkflowSerializationFormat.PORTABLE)
def portable_failing() -> None:
    raise PortableWorkflowError("it failed", name="Failed", code=17, data={"a": [1, None]})


@DBOS.workflow(serialization_type=WorkflowSerializationFormat.PORTABLE)
def portable_value_error() -> None:
    raise ValueError("plain")


@DBOS.workflow()
def child_fails() -> str:
    try:
        failing("from parent")
    except OrderError as error:
        return f"child failed: {error.args}"
    return "not reached"


@DBOS.workflow()
def sleeper() -> None:
    reserve("bed")
    DBOS.sleep(3600)


@DBOS.workflow()
def waits_for_cancelled() -> None:
    DBOS.retrieve_workflow("sleeper").get_result()


@DBOS.workflow()
def enqueues() -> list[str]:
    first = DBOS.enqueue_workflow("mail", child, 10)
    second = DBOS.enqueue_workflow_with_options({"workflow_name": child.__qualname__, "queue_name": "mail"}, 11)
    return [first.workflow_id, second.workflow_id]


@DBOS.step()
def write_in_step() -> None:
    note()
    DBOS.write_stream("s", "in a step")
    DBOS.write_stream("s", "portable in a step", serialization_type=WorkflowSerializationFormat.PORTABLE)


@DBOS.workflow()
def streaming() -> list[Any]:
    """Writes a stream and reads it; dies between two values of it."""
    DBOS.write_stream("s", {"a": (1, b"x")})
    DBOS.write_stream("s", None, serialization_type=WorkflowSerializationFormat.PORTABLE)
    write_in_step()
    reader = DBOS.read_stream("streaming", "s")
    seen = [next(reader), next(reader), next(reader), hold()]
    DBOS.write_stream("s", "after")
    DBOS.close_stream("s")
    seen += list(reader)
    seen.append(DBOS.read_stream_offset("streaming", "s", 1))
    for key, offset, timeout_seconds in (("s", 5, None), ("empty", 0, 0)):
        try:
            DBOS.read_stream_offset("streaming", key, offset, timeout_seconds=timeout_seconds)
        except DBOSStreamTimeoutError as failure:
            seen.append(failure.timeout_seconds)
    return seen


@DBOS.workflow()
def debouncing() -> list[Any]:
    """A new workflow, a bounce, a refusal; and a bounce by whoever finishes it."""
    debouncer = Debouncer.create(child)
    ids = [debouncer.debounce("in workflow", 1000, number).workflow_id for number in (1, 2)]
    with SetEnqueueOptions(deduplication_id=f"{child.__qualname__}-by hand", delay_seconds=1000):
        by_hand = DBOS.enqueue_workflow("mail", child, 3)
    try:
        Debouncer.create(child, queue=DBOS.retrieve_queue("mail")).debounce("by hand", 1, 4)
    except Exception as error:
        ids.append(type(error).__name__)
    hold()
    handle = debouncer.debounce("in workflow", 0, 5)
    DBOS.cancel_workflow(by_hand.workflow_id)
    return [*ids, handle.workflow_id, handle.get_result()]


@DBOS.dbos_class()
class Shop(DBOSConfiguredInstance):
    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(config_name=name)

    @DBOS.workflow()
    def open(self, day: str) -> str:
        return f"{self.name} {day} {self.sweep(3)}"

    @DBOS.step()
    def sweep(self, n: int) -> int:
        return n

    @staticmethod
    @DBOS.workflow()
    def motto() -> str:
        return "motto"

    @classmethod
    @DBOS.workflow()
    def count(cls, n: int) -> int:
        return n


def outcome(workflow_id: str) -> Any:
    try:
        return ["SUCCESS", repr(DBOS.retrieve_workflow(workflow_id).get_result())]
    except Exception as error:
        return ["ERROR", *described(error)]


def shown(value: Any) -> str:
    return repr(sorted(vars(value).items())) if type(value).__name__ == "WorkflowStatus" else repr(value)


def described(error: BaseException | None) -> list[str]:
    return [] if error is None else [type(error).__name__, str(error)]


def start(workflow_id: str, function: Any, *args: Any, **kwargs: Any) -> None:
    with SetWorkflowID(workflow_id):
        DBOS.start_workflow(function, *args, **kwargs)


def run(shop: Shop) -> dict[str, Any]:
    start("checkout", checkout, "book", count=3)
    start("checkout-async", checkout_async, "lamp")
    start("waiting-for-child", waiting_for_child)
    DBOS.register_queue("mail")
    start("debouncing", debouncing)
    start("streaming", streaming)
    if ACTION == "leave":
        threading.Event().wait()
    start("failing", failing, "x")
    start("exhausted", exhausted)
    start("portable", portable, [1, 2], name="é")
    start("portable-failing", portable_failing)
    start("portable-value-error", portable_value_error)
    start("child-fails", child_fails)
    start("shop", shop.open, "monday")
    start("motto", Shop.motto)
    start("count", Shop.count, 4)
    start("step-as-workflow", reserve, "direct")
    with DBOSContextSetAuth("alice", ["admin", "user"]):
        start("by-alice", child, 5)
    with SetWorkflowAttributes({"region": "eu", "n": [1]}):
        start("with-attributes", child, 6)
    with SetWorkflowTimeout(1000):
        start("with-timeout", child, 7)
    start("sleeper", sleeper)
    while len(DBOS.list_workflow_steps("sleeper")) < 2:
        time.sleep(0.01)
    DBOS.cancel_workflow("sleeper")
    start("waits-for-cancelled", waits_for_cancelled)
    ids = [*HOLDING_IDS, "failing", "exhausted", "portable", "portable-failing", "portable-value-error", "child-fails"]
    ids += [
        "shop",
        "motto",
        "count",
        "step-as-workflow",
        "by-alice",
        "with-attributes",
        "with-timeout",
        "sleeper",
        "waits-for-cancelled",
    ]
    return {workflow_id: outcome(workflow_id) for workflow_id in ids}


def enqueue(shop: Shop) -> list[str]:
    """What every option of an enqueue leaves in the rows."""
    DBOS.register_queue("mail", global_concurrency=4, worker_concurrency=2, limiter={"limit": 100, "period": 1.5})
    DBOS.register_queue("parts", partition_concurrency=1, partition_limiter={"limit": 50, "period": 1})
    with SetWorkflowID("q-plain"):
        DBOS.enqueue_workflow("mail", child, 5)
    with SetWorkflowID("q-async"):
        DBOS.enqueue_workflow("mail", child_async, 6)
    with SetWorkflowID("q-method"):
        DBOS.enqueue_workflow("mail", shop.open, "tuesday")
    with SetWorkflowID("q-step"):
        DBOS.enqueue_workflow("mail", reserve, "queued")
    with SetWorkflowID("q-priority"), SetEnqueueOptions(priority=3, deduplication_id="d", app_version="v1"):
        DBOS.enqueue_workflow("mail", child, 7)
    with SetWorkflowID("q-delayed"), SetEnqueueOptions(delay_seconds=0.5), SetWorkflowTimeout(1000):
        DBOS.enqueue_workflow("mail", child, 8)
    for number in range(3):
        with SetWorkflowID(f"q-part-{number}"), SetEnqueueOptions(queue_partition_key=f"key {number % 2}"):
            DBOS.enqueue_workflow("parts", child, number)
    with SetWorkflowID("q-by-alice"), DBOSContextSetAuth("alice", ["admin"]), SetWorkflowAttributes({"n": [1]}):
        DBOS.enqueue_workflow("mail", child, 9)
    options: Any = {
        "workflow_name": portable.__qualname__,
        "queue_name": "mail",
        "workflow_id": "q-named",
        "serialization_type": WorkflowSerializationFormat.PORTABLE,
        "priority": 2,
        "workflow_timeout": 900.0,
        "authenticated_user": "bob",
        "authenticated_roles": ["reader"],
        "attributes": {"a": 1},
    }
    DBOS.enqueue_workflow_with_options(options, [1, 2], name="é")
    with SetWorkflowID("q-parent"):
        enqueues()
    with SetWorkflowID("q-cancelled"), SetEnqueueOptions(delay_seconds=3600, priority=4, queue_partition_key="key 0"):
        DBOS.enqueue_workflow("parts", child, 12)
    DBOS.cancel_workflow("q-cancelled")
    return QUEUED_IDS


QUEUED_IDS = ["q-plain", "q-async", "q-method", "q-step", "q-priority", "q-delayed", "q-part-0", "q-part-1", "q-part-2"]
QUEUED_IDS += ["q-by-alice", "q-named", "q-parent-1", "q-parent-2"]


@DBOS.workflow()
def nightly(scheduled_at: datetime, context: Any) -> list[Any]:
    return [scheduled_at.isoformat(), context, reserve("report")["count"]]


@DBOS.workflow()
def secondly(scheduled_at: datetime, context: Any) -> str:
    return f"{scheduled_at.microsecond} {context}"


def schedule() -> list[str]:
    """Schedules with every option, and runs of them that wait on a queue nobody serves here."""
    DBOS.register_queue("mail")
    DBOS.create_schedule(schedule_name="plain", workflow_fn=nightly, schedule="0 0 29 2 *")
    DBOS.create_schedule(
        schedule_name="full",
        workflow_fn=nightly,
        schedule="30 2 * * mon-fri",
        context={"a": (1, b"2"), "text": "naïve ☃"},
        automatic_backfill=True,
        cron_timezone="Europe/Berlin",
        queue_name="mail",
    )
    entries: Any = [{"schedule_name": "applied", "workflow_fn": nightly, "schedule": "0 0 1 1 *", "context": 5}]
    DBOS.apply_schedules(entries)
    DBOS.pause_schedule("applied")
    handles = DBOS.backfill_schedule("full", datetime(2026, 3, 26), datetime(2026, 4, 1))
    return [handle.workflow_id for handle in handles]


def tick() -> list[str]:
    """A schedule of a run per second, made here or by the other; what its first run here gave."""
    if DBOS.get_schedule("secondly") is None:
        DBOS.create_schedule(schedule_name="secondly", workflow_fn=secondly, schedule="* * * * * *", context="c")
    before = (DBOS.get_schedule("secondly") or {}).get("last_fired_at")
    while (fired := (DBOS.get_schedule("secondly") or {}).get("last_fired_at")) == before:
        time.sleep(0.05)
    return outcome(f"sched-secondly-{fired}")


def debounce(period: float, number: int) -> list[str]:
    """The first calls for some keys (with a long period), or later ones."""
    DBOS.register_queue("mail")
    debouncers = [
        ("d-plain", Debouncer.create(child)),
        ("d-queue", Debouncer.create(child, queue="mail", debounce_timeout_sec=5000)),
        ("d-async", Debouncer.create_async(child_async)),
    ]
    ids = []
    for workflow_id, debouncer in debouncers:
        with SetWorkflowID(workflow_id), SetWorkflowTimeout(1000), SetWorkflowAttributes({"n": [number]}):
            ids.append(debouncer.debounce("key", period, number).workflow_id)
    with SetWorkflowID("d-portable"), DBOSContextSetAuth("alice", ["admin"]):
        ids.append(Debouncer(portable.__qualname__).debounce("key", period, [number], name="é").workflow_id)
    other: Any = Debouncer(child.__qualname__, application_name="interop-other")
    with SetWorkflowID("d-other"):
        other.debounce("other", period, number)
    return ids


# What both shall find the same with; attributes only on Postgres, where both can.
FILTERS: list[dict[str, Any]] = [
    {},
    {"status": "SUCCESS"},
    {"status": ["SUCCESS", "CANCELLED"], "user": "alice"},
    {"name": "child"},
    {"app_version": "v1"},
    {"parent_workflow_id": "q-parent"},
    {"has_parent": True},
    {"has_parent": False},
    {"is_fork": True},
    {"was_forked_from": False},
    {"queue_name": ["mail", "parts"]},
    {"workflow_id_prefix": "q-p"},
    {"workflow_id_prefix": "q_"},
    {"workflow_ids": ["q-plain", "absent", "q-cancelled"]},
    {"executor_id": ["executor", "other"]},
    {"schedule_name": "none"},
    {"forked_from": "none"},
    {"application_name": "interop"},
    {"application_name": "another"},
    {"queues_only": True},
    {"queues_only": True, "status": ["SUCCESS", "PENDING"]},
    {"start_time": "2020-01-01T00:00:00+00:00", "end_time": "2100-01-01T00:00:00"},
    {"start_time": "2100-01-01"},
    {"completed_after": "2020-01-01"},
    {"dequeued_before": "2100-01-01"},
    {"attributes": {"a": 1}},
    {"attributes": {"n": [1]}},
]


def list_workflows() -> list[list[str]]:
    answers = []
    for filters in FILTERS:
        if "attributes" in filters and URL.startswith("sqlite"):
            continue
        found = DBOS.list_workflows(**filters)
        # Workflows of one millisecond have no order there.
        assert [status.created_at for status in found] == sorted(status.created_at or 0 for status in found)
        answers.append(sorted(status.workflow_id for status in found))
    answers.append(sorted(status.workflow_id for status in DBOS.list_queued_workflows()))
    return answers


def read_stream(workflow_id: str) -> list[str]:
    values = list(DBOS.read_stream(workflow_id, "s", timeout_seconds=10))
    return [shown(value) for value in [*values, *DBOS.read_stream(workflow_id, "s", offset=2)]]


def read(ids: list[str]) -> dict[str, Any]:
    """Everything that does not depend on who reads."""
    found: dict[str, Any] = {}
    for workflow_id in ids:
        status = DBOS.get_workflow_status(workflow_id)
        fields = {name: getattr(status, name) for name in STATUS_FIELDS}
        error = fields.pop("error")
        steps = [
            {**step, "error": described(step["error"]), "output": shown(step["output"])}
            for step in DBOS.list_workflow_steps(workflow_id)
        ]
        found[workflow_id] = {
            "status": {name: repr(value) for name, value in fields.items()},
            "error": described(error),
            "steps": steps,
            "stream": read_stream(workflow_id) if fields["status"] == "SUCCESS" else None,
            "outcome": outcome(workflow_id) if fields["status"] not in ("PENDING", "ENQUEUED") else None,
        }
    return found


STATUS_FIELDS = [
    "workflow_id",
    "status",
    "name",
    "class_name",
    "config_name",
    "authenticated_user",
    "assumed_role",
    "authenticated_roles",
    "input",
    "output",
    "error",
    "created_at",
    "updated_at",
    "queue_name",
    "executor_id",
    "app_version",
    "workflow_timeout_ms",
    "workflow_deadline_epoch_ms",
    "deduplication_id",
    "priority",
    "queue_partition_key",
    "forked_from",
    "was_forked_from",
    "parent_workflow_id",
    "dequeued_at",
    "delay_until_epoch_ms",
    "completed_at",
    "attributes",
    "recovery_attempts",
]


def main() -> None:
    DBOS(
        config={
            "name": "interop",
            "application_version": "v1",
            # A reader must not take over what others have left.
            "executor_id": "reader" if ACTION in ("read", "list") else "executor",
            "log_level": "ERROR",
            "system_database_url": URL,
        }
    )
    shop = Shop("north")
    if ACTION in ("enqueue", "schedule", "list"):
        DBOS.listen_queues([])
    DBOS.launch()
    if ACTION in ("run", "leave"):
        answer: Any = run(shop)
    elif ACTION == "enqueue":
        answer = enqueue(shop)
    elif ACTION == "schedule":
        answer = schedule()
    elif ACTION == "tick":
        answer = tick()
    elif ACTION == "debounce":
        answer = debounce(1000, 1) + debounce(2000, 2)
    elif ACTION == "bounce":
        answer = {workflow_id: outcome(workflow_id) for workflow_id in debounce(0, 3)}
    elif ACTION == "list":
        answer = list_workflows()
    elif ACTION == "resume":
        answer = outcome(DBOS.resume_workflow(IDS[0]).workflow_id)
    elif ACTION == "finish":
        answer = {workflow_id: outcome(workflow_id) for workflow_id in IDS}
    else:
        answer = read(IDS)
    sys.stdout.write(json.dumps({"answer": answer, "executed": executed}))
    sys.stdout.flush()
    # Without waiting for the sleeper.
    os._exit(0)


if __name__ == "__main__":
    main()
