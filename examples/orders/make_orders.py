"""Write orders.jsonl: 1,000 orders of a coffee shop, the same ones every time; about 4 % are invalid."""

import json
import random
from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from orders import ORDERS_FILE, Order
from world import CATALOGUE_CENTS

FIRST_NAMES = "Ada Ben Chloe Diego Elif Farid Grace Hana Ivan Jonas Kofi Lena Mei Noor Olga Paulo Rosa Sven Tara Yusuf"
LAST_NAMES = "Adeyemi Bauer Costa Dubois Eriksen Fischer Garcia Haddad Ito Jansen Kaya Lopez Moreau Novak Okafor Patel"
CITIES = (
    "Lisbon PT",
    "Lyon FR",
    "Ghent BE",
    "Leipzig DE",
    "Graz AT",
    "Turin IT",
    "Malmö SE",
    "Gdansk PL",
    "Cork IE",
)
COUNT = 1_000
INVALID_SHARE = 0.04


def make_order(number: int, placed_at: datetime, chance: random.Random) -> Order:
    first, last = chance.choice(FIRST_NAMES.split()), chance.choice(LAST_NAMES.split())
    city, country = chance.choice(CITIES).split()
    skus = chance.sample(sorted(CATALOGUE_CENTS), chance.choice((1, 1, 1, 2, 2, 3, 4)))
    return {
        "order_id": f"order-{number:04}",
        "placed_at": placed_at.isoformat(),
        "customer": {
            "name": f"{first} {last}",
            "email": f"{first}.{last}@example.com".lower(),
            "city": city,
            "country": country,
        },
        "items": [
            {"sku": sku, "quantity": chance.choice((1, 1, 1, 2, 3)), "price_cents": CATALOGUE_CENTS[sku]}
            for sku in skus
        ],
        "card_token": f"card_{chance.getrandbits(64):016x}",
    }


SPOILERS: tuple[Callable[[Order], None], ...] = (
    lambda order: order["items"].clear(),
    lambda order: order.pop("card_token"),
    lambda order: order["items"][0].update(quantity=-1),
    lambda order: order["items"][-1].update(sku="TEA-GREEN-100"),
    lambda order: order["items"][0].update(price_cents=1),
)


def main() -> None:
    chance = random.Random(1_000)
    placed_at = datetime(2025, 11, 28, 8, tzinfo=timezone.utc)
    lines = []
    for number in range(1, COUNT + 1):
        placed_at += timedelta(seconds=chance.randint(1, 90))
        order = make_order(number, placed_at, chance)
        if chance.random() < INVALID_SHARE:
            chance.choice(SPOILERS)(order)
        lines.append(json.dumps(order, ensure_ascii=False) + "\n")
    ORDERS_FILE.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
