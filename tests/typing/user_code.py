"""What a user writes, for the type checkers only: never imported.

`assert_type` states what must be inferred; a line that ends in `# error` must be refused by both checkers, and
no other line may be.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from typing_extensions import assert_type

from dbos import (
    DBOS,
    DBOSClient,
    DBOSConfiguredInstance,
    Debouncer,
    DebouncerClient,
    EnqueueItem,
    MessageInfo,
    SetWorkflowID,
    SetWorkflowTimeout,
    StepInfo,
    StepOptions,
    StepReservation,
    VersionInfo,
    WorkflowHandle,
    WorkflowHandleAsync,
    WorkflowStatus,
)

# --- functions


@DBOS.workflow()
def checkout(order: str, *, gift: bool = False) -> int:
    return len(order)


@DBOS.workflow(name="checkout_async", max_recovery_attempts=None)
async def checkout_async(order: str, count: int = 1) -> list[str]:
    return [order] * count


@DBOS.step(retries_allowed=True, max_attempts=5)
def charge(cents: int, *tags: str) -> bytes:
    return b""


@DBOS.step(timeout_seconds=2.5, preemptible=True)
async def charge_async(cents: int) -> dict[str, int]:
    return {}


@DBOS.workflow()
def nothing() -> None: ...


def plain(text: str, times: int = 1) -> float:
    return 1.0


async def plain_async(text: str) -> complex:
    return 1j


assert_type(checkout("a"), int)
assert_type(checkout("a", gift=True), int)
assert_type(charge(1, "a", "b"), bytes)
checkout(1)  # error
checkout("a", True)  # error
checkout("a", wrap=True)  # error
checkout()  # error
charge("1")  # error
keeps_its_signature: Callable[[str], int] = checkout
does_not_fit: Callable[[int], int] = checkout  # error
also_async: Callable[[str], Coroutine[Any, Any, list[str]]] = checkout_async
not_async: Callable[[str], list[str]] = checkout_async  # error


async def call_async() -> None:
    assert_type(await checkout_async("a", count=2), list[str])
    assert_type(await charge_async(1), dict[str, int])
    await checkout_async(1)  # error
    await charge_async()  # error
    checkout_async("a").append("b")  # error


# --- methods


@DBOS.dbos_class()
class Shop(DBOSConfiguredInstance):
    def __init__(self, name: str) -> None:
        super().__init__(config_name=name)

    @DBOS.workflow()
    def sell(self, order: str) -> int:
        return 1

    @DBOS.workflow()
    async def sell_async(self, order: str) -> bytes:
        return b""

    @classmethod
    @DBOS.workflow()
    def restock(cls, count: int) -> str:
        return ""

    @staticmethod
    @DBOS.workflow()
    def audit(year: int) -> float:
        return 1.0

    @staticmethod
    @DBOS.step()
    async def weigh(item: str) -> float:
        return 1.0


shop = Shop("main")
assert_type(shop, Shop)
assert_type(shop.sell("a"), int)
assert_type(Shop.restock(1), str)
assert_type(shop.restock(1), str)
assert_type(Shop.audit(2024), float)
shop.sell(1)  # error
shop.sell()  # error
Shop.restock("a")  # error
Shop.audit("a")  # error
Shop(1)  # error


@DBOS.required_roles(["admin"])
@DBOS.workflow()
def guarded(key: str) -> int:
    return 1


assert_type(guarded("a"), int)
guarded(1)  # error


async def call_methods() -> None:
    assert_type(await shop.sell_async("a"), bytes)
    assert_type(await Shop.weigh("a"), float)
    await shop.sell_async(1)  # error
    await Shop.weigh(1)  # error


# --- handles


def start_in_background() -> None:
    handle = DBOS.start_workflow(checkout, "a", gift=True)
    assert_type(handle, WorkflowHandle[int])
    assert_type(handle.get_result(), int)
    assert_type(handle.get_result(polling_interval_sec=0.1, timeout_seconds=5), int)
    assert_type(handle.get_status(), WorkflowStatus)
    assert_type(handle.workflow_id, str)
    assert_type(handle.get_workflow_id(), str)
    of_async = DBOS.start_workflow(checkout_async, "a")
    assert_type(of_async, WorkflowHandle[list[str]])
    assert_type(of_async.get_result(), list[str])
    assert_type(DBOS.start_workflow(nothing), WorkflowHandle[None])
    assert_type(DBOS.start_workflow(charge, 1, "tag"), WorkflowHandle[bytes])
    assert_type(DBOS.start_workflow(shop.sell, "a"), WorkflowHandle[int])
    assert_type(DBOS.start_workflow(shop.sell_async, "a"), WorkflowHandle[bytes])
    assert_type(DBOS.start_workflow(Shop.restock, 1), WorkflowHandle[str])
    assert_type(DBOS.start_workflow(Shop.audit, 1), WorkflowHandle[float])
    DBOS.start_workflow(checkout, 1)  # error
    DBOS.start_workflow(checkout)  # error
    DBOS.start_workflow(checkout, "a", wrap=True)  # error
    DBOS.start_workflow(shop.sell, 1)  # error
    wider: WorkflowHandle[object] = handle
    narrower: WorkflowHandle[bool] = handle  # error
    del wider, narrower


async def start_async() -> None:
    handle = await DBOS.start_workflow_async(checkout_async, "a", 3)
    assert_type(handle, WorkflowHandleAsync[list[str]])
    assert_type(await handle.get_result(), list[str])
    assert_type(await handle.get_status(), WorkflowStatus)
    of_sync = await DBOS.start_workflow_async(checkout, "a")
    assert_type(of_sync, WorkflowHandleAsync[int])
    assert_type(await DBOS.start_workflow_async(shop.sell_async, "a"), WorkflowHandleAsync[bytes])
    await DBOS.start_workflow_async(checkout_async, 1)  # error
    await DBOS.start_workflow_async(checkout_async, "a", "b")  # error
    handle.get_result().append("b")  # error


# --- steps without a decorator


def run_steps() -> None:
    assert_type(DBOS.run_step(None, plain, "a", times=2), float)
    assert_type(DBOS.run_step({"name": "p", "max_attempts": 2}, plain, "a"), float)
    assert_type(DBOS.run_step(StepOptions(name="p"), plain_async, "a"), complex)
    assert_type(DBOS.run_step(None, lambda: 1), int)
    DBOS.run_step(None, plain, 1)  # error
    DBOS.run_step(None, plain)  # error
    DBOS.run_step({"nme": "p"}, plain, "a")  # error
    DBOS.run_step({"name": 1}, plain, "a")  # error
    reservation = DBOS.reserve_step()
    assert_type(reservation, StepReservation)
    assert_type(reservation.run(None, plain, "a"), float)
    assert_type(reservation.run(None, plain_async, "a"), complex)
    reservation.run(None, plain, 1)  # error


async def run_steps_async() -> None:
    assert_type(await DBOS.run_step_async(None, plain_async, "a"), complex)
    assert_type(await DBOS.run_step_async(None, plain, "a", 2), float)
    assert_type(await DBOS.reserve_step().run_async(None, plain_async, "a"), complex)
    assert_type(await DBOS.reserve_step().run_async(None, plain, "a", times=2), float)
    await DBOS.reserve_step().run_async(None, plain_async, 1)  # error
    await DBOS.run_step_async(None, plain_async, 1)  # error


# --- debouncing


def debounce() -> None:
    debouncer = Debouncer.create(checkout, debounce_timeout_sec=60, queue="q")
    assert_type(debouncer.debounce("key", 1.5, "a", gift=True), WorkflowHandle[int])
    debouncer.debounce("key", 1.5, 5)  # error
    debouncer.debounce("key", 1.5)  # error
    debouncer.debounce(5, 1.5, "a")  # error
    by_name: Debouncer[[str], int] = Debouncer("checkout")
    assert_type(by_name.debounce("key", 1, "a").get_result(), int)
    Debouncer("checkout").debounce("key", 1, "a", anything=True)


async def debounce_async() -> None:
    debouncer = Debouncer.create_async(checkout_async)
    assert_type(await debouncer.debounce_async("key", 1.5, "a", 3), WorkflowHandleAsync[list[str]])
    await debouncer.debounce_async("key", 1.5, 3)  # error


# --- everything else


async def look_async() -> None:
    assert_type(await DBOS.get_workflow_status_async("w"), "WorkflowStatus | None")
    assert_type(await DBOS.list_workflow_steps_async("w"), list[StepInfo])
    assert_type(await DBOS.list_workflows_async(user="u"), "list[WorkflowStatus]")
    assert_type(await DBOS.patch_async("faster"), bool)
    assert_type(await DBOS.resume_workflow_async("w"), WorkflowHandleAsync[Any])
    await DBOS.sleep_async("long")  # error


def look() -> None:
    assert_type(DBOS.retrieve_workflow("w").get_status(), WorkflowStatus)
    assert_type(DBOS.get_workflow_status("w"), "WorkflowStatus | None")
    assert_type(DBOS.list_workflow_steps("w"), list[StepInfo])
    assert_type(DBOS.list_workflows(status=["ERROR"], limit=5), "list[WorkflowStatus]")
    assert_type(DBOS.list_queued_workflows(queue_name="q"), "list[WorkflowStatus]")
    assert_type(DBOS.list_application_versions(), list[VersionInfo])
    assert_type(DBOS.workflow_id, "str | None")
    assert_type(DBOS.patch("faster"), bool)
    assert_type(DBOS.sleep(1.5), None)
    DBOS.sleep("long")  # error
    DBOS.cancel_workflow(1)  # error
    assert_type(DBOS.resume_workflow("w"), WorkflowHandle[Any])
    with SetWorkflowID("a"), SetWorkflowTimeout(1.5):
        assert_type(checkout("a"), int)
    with SetWorkflowID(1):  # error
        pass


@DBOS.workflow(max_recovery_attempts="many")  # error
def bad_option() -> None: ...


@DBOS.step(attempts=2)  # error
def unknown_option() -> None: ...


DBOS(config={"name": "my-app", "system_database_url": "sqlite:///file"})
DBOS(config={"name": "my-app", "databse": "x"})  # error


# --- many workflows with one call


assert_type(EnqueueItem(checkout, "o-1", gift=True), EnqueueItem[int])
assert_type(EnqueueItem(checkout_async, "o-1"), EnqueueItem[list[str]])
assert_type(EnqueueItem(charge, 5).with_options(priority=1, deduplication_id="d"), EnqueueItem[bytes])
assert_type(EnqueueItem("by name", 1, key=2), EnqueueItem[Any])
assert_type(
    DBOS.enqueue_workflows("mail", [EnqueueItem(checkout, order) for order in ("a", "b")]), list[WorkflowHandle[int]]
)
EnqueueItem(checkout, 5)  # error
EnqueueItem(checkout)  # error
EnqueueItem(checkout, "o-1", priority=1)  # error
EnqueueItem(checkout, "o-1").with_options(priority="high")  # error
EnqueueItem(checkout, "o-1").with_options(urgent=True)  # error
DBOS.enqueue_workflows("mail", [checkout])  # error


async def many() -> None:
    items = [EnqueueItem(checkout_async, "a")]
    assert_type(await DBOS.enqueue_workflows_async("mail", items), list[WorkflowHandleAsync[list[str]]])


# --- clients


def use_client() -> None:
    with DBOSClient(system_database_url="sqlite:///x", application_name="a") as client:
        assert_type(client, DBOSClient)
        handle: WorkflowHandle[int] = client.enqueue({"workflow_name": "w", "queue_name": "q"}, 1, two=2)
        assert_type(handle.get_status(), WorkflowStatus)
        client.retrieve_workflow("w").get_result(timeout_seconds=5)
        assert_type(client.list_workflows(status="ERROR", limit=5), "list[WorkflowStatus]")
        assert_type(client.list_workflow_steps("w"), list[StepInfo])
        assert_type(client.list_messages("w", received=False), list[MessageInfo])
        client.list_messages("w", topic="t")  # error
        assert_type(client.cancel_workflow("w", cancel_children=True), None)
        assert_type(client.rename_application("a", "b"), dict[str, int])
        client.enqueue({"workflow_name": "w"})  # error
        client.enqueue({"workflow_name": "w", "queue_name": "q", "priorty": 1})  # error
        client.list_workflows(state="ERROR")  # error
        client.cancel_workflow(1)  # error
        client.register_queue("q", on_conflict="update_if_latest_version")  # error
        debouncer: DebouncerClient[int] = DebouncerClient(client, {"workflow_name": "w", "queue_name": "q"})
        assert_type(debouncer.debounce("k", 1.5, 1).get_result(), int)


async def use_client_async() -> None:
    async with DBOSClient(system_database_url="sqlite:///x") as client:
        handle: WorkflowHandleAsync[int] = await client.enqueue_async({"workflow_name": "w", "queue_name": "q"})
        assert_type(await handle.get_status(), WorkflowStatus)
        assert_type(await client.list_workflows_async(), "list[WorkflowStatus]")
        await client.set_workflow_delay_async("w", delay="soon")  # error
