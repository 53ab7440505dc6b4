"""Checking out a shop's orders, durably.

Run it, kill it, run it again: every order is finished once. Nothing in here deals with crashes. The workflow
ID says which order it is, and every finished step is a checkpoint. (`@watch` is only for the demo's counts.)
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig, SetWorkflowID

import orders
from orders import InvalidOrder, Order
from watch import watch
from world import World

IN_FLIGHT = 25

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


@DBOS.workflow()
def checkout(order: Order) -> dict[str, Any]:
    cents = validate(order)
    reservation = reserve(order["items"])
    receipt = charge(order["card_token"], cents)
    tracking = ship(order["customer"], reservation)
    return {"reservation": reservation, "receipt": receipt, "cents": cents, "tracking": tracking}


def process(order: Order) -> dict[str, str]:
    """Check one order out, or join the checkout that an earlier run began."""
    with SetWorkflowID(order["order_id"]):
        handle = DBOS.start_workflow(checkout, order)
    try:
        handle.get_result()
    except InvalidOrder as reason:
        return {"order": order["order_id"], "invalid": str(reason)}
    return {"order": order["order_id"]}


def main() -> None:
    DBOS(config=config)
    DBOS.launch()  # takes up what an earlier run left unfinished
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for done in as_completed([pool.submit(process, order) for order in orders.load()]):
            print(json.dumps(done.result()), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    main()
