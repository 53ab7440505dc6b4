"""What an order is, when it is invalid, and what it costs: plain code, no durability in sight."""

import json
from pathlib import Path
from typing import Any

Order = dict[str, Any]

ORDERS_FILE = Path(__file__).with_name("orders.jsonl")


class InvalidOrder(Exception):
    """This order can never be fulfilled; trying again does not help."""


def load() -> list[Order]:
    return [json.loads(line) for line in ORDERS_FILE.read_text(encoding="utf-8").splitlines()]


def total_cents(order: Order) -> int:
    return sum(item["quantity"] * item["price_cents"] for item in order["items"])


def check(order: Order, prices_cents: dict[str, int]) -> None:
    """Raise InvalidOrder, with the reason, unless the order can be fulfilled."""
    if not order["items"]:
        raise InvalidOrder("the order has no items")
    if not order.get("card_token"):
        raise InvalidOrder("the order has no payment card")
    for item in order["items"]:
        sku = item["sku"]
        if sku not in prices_cents:
            raise InvalidOrder(f"unknown article {sku}")
        if item["quantity"] < 1:
            raise InvalidOrder(f"quantity {item['quantity']} of article {sku}")
        if item["price_cents"] != prices_cents[sku]:
            raise InvalidOrder(f"article {sku} costs {prices_cents[sku]} cents, not {item['price_cents']}")


def is_valid(order: Order, prices_cents: dict[str, int]) -> bool:
    try:
        check(order, prices_cents)
    except InvalidOrder:
        return False
    return True
