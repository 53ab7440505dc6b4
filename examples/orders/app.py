"""Checking out a shop's orders, durably.

Run it, kill it, run it again: every order is finished once. Nothing in here deals with crashes. The workflow
ID says which order it is, and every finished step is a checkpoint. (`@watch` is only for the demo's counts.)

Orders wait on a queue that lets no more than 50 start in half a second. A customer gets a mail when the status of the
order has not changed for a while, not one per change. A report is written on schedule.
"""

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig, Debouncer, EnqueueItem, WorkflowHandle

import orders
from orders import InvalidOrder, Order
from watch import watch
from world import World

IN_FLIGHT = 25
START_LIMIT, START_PERIOD_SECONDS = 50, 0.5
QUIET_SECONDS = 0.3
REPORT_TIMES = os.environ.get("ORDERS_REPORT_TIMES", "30 2 * * *")

config: DBOSConfig = {
    "name": "orders",
    "system_database_url": os.environ.get("ORDERS_DATABASE_URL", "sqlite:///orders.sqlite"),
    "application_version": "1",
    "executor_id": "checkout",
    "log_level": "ERROR",
}
world = World(Path(os.environ.get("ORDERS_WORLD", "world.sqlite")))


def request_key() -> str:
    """The same however often this step of this workflow runs, so the outside can tell a repeated request."""
    return f"{DBOS.workflow_id}/{DBOS.step_id}"


@watch(world)
@DBOS.step()
def validate(order: Order) -> int:
    """Returns the price of the order in cents. An InvalidOrder is recorded like a result."""
    orders.check(order, world.prices_cents(request_key()))
    return orders.total_cents(order)


@watch(world)
@DBOS.step()
def reserve(items: list[dict[str, Any]]) -> str:
    return world.reserve(request_key(), items)


@watch(world)
@DBOS.step(retries_allowed=True, max_attempts=10, interval_seconds=0.02, backoff_rate=1.5)
def charge(card_token: str, cents: int) -> str:
    return world.charge(request_key(), card_token, cents)


@watch(world)
@DBOS.step()
def ship(customer: dict[str, str], reservation: str) -> str:
    return world.ship(request_key(), customer, reservation)


@DBOS.step()
def mail(address: str, order_id: str, status: str) -> str:
    return world.mail(request_key(), address, order_id, status)


@DBOS.workflow()
def status_mail(address: str, order_id: str, status: str) -> str:
    return mail(address, order_id, status)


status_mails = Debouncer.create(status_mail)


@DBOS.workflow()
def checkout(order: Order) -> dict[str, Any]:
    order_id, address = order["order_id"], order["customer"]["email"]
    cents = validate(order)
    reservation = reserve(order["items"])
    receipt = charge(order["card_token"], cents)
    status_mails.debounce(order_id, QUIET_SECONDS, address, order_id, "paid")
    tracking = ship(order["customer"], reservation)
    told = status_mails.debounce(order_id, QUIET_SECONDS, address, order_id, "shipped")
    return {"receipt": receipt, "cents": cents, "tracking": tracking, "mail": told.workflow_id}


@DBOS.step()
def report() -> str:
    return world.report(request_key())


@DBOS.workflow()
def sales_report(scheduled_at: datetime, context: None) -> str:
    return report()


def place(order: Order) -> EnqueueItem[dict[str, Any]]:
    """An order for the queue. One that an earlier run has placed is found by its id."""
    return EnqueueItem(checkout, order).with_options(workflow_id=order["order_id"])


def outcome(placed: WorkflowHandle[dict[str, Any]]) -> dict[str, str]:
    """Wait until an order is finished and its customer has been told."""
    try:
        finished = placed.get_result()
    except InvalidOrder as reason:
        return {"order": placed.workflow_id, "invalid": str(reason)}
    DBOS.retrieve_workflow(finished["mail"]).get_result()
    return {"order": placed.workflow_id}


def main() -> None:
    DBOS(config=config)
    DBOS.launch()  # takes up what an earlier run left unfinished
    limiter: Any = {"limit": START_LIMIT, "period": START_PERIOD_SECONDS}
    DBOS.register_queue("checkouts", worker_concurrency=IN_FLIGHT, limiter=limiter)
    DBOS.apply_schedules(
        [
            {
                "schedule_name": "sales-report",
                "workflow_fn": sales_report,
                "schedule": REPORT_TIMES,
                "catch_up": "all",
            }
        ]
    )
    for placed in DBOS.enqueue_workflows("checkouts", [place(order) for order in orders.load()]):
        print(json.dumps(outcome(placed)), flush=True)
    DBOS.destroy(workflow_completion_timeout_sec=10)  # a report may be under way


if __name__ == "__main__":
    main()
