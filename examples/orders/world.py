"""The world outside the application: catalogue, warehouse, payment provider, carrier, mail.

It lives in a SQLite file of its own and knows nothing of workflows, so it is an independent witness of what
the application did. Every request carries an idempotency key, `<order>/<step number>`. Every request is
written down, a repeated one too, but it takes effect once per key, as with any real payment provider.
"""

import hashlib
import os
import random
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

CATALOGUE_CENTS = {
    "BEAN-ETH-250": 1190, "BEAN-COL-250": 1090, "BEAN-KEN-250": 1290, "BEAN-DEC-250": 1150,
    "BEAN-ESP-1000": 3490, "GRIND-HAND": 8900, "GRIND-ELEC": 24900, "DRIP-V60": 2450,
    "PRESS-600": 3990, "KETTLE-GOOSE": 7900, "SCALE-01G": 4500, "FILTER-100": 690,
    "CUP-ESP-2": 1800, "MUG-350": 1450, "BREW-BOOK": 2990, "DESCALE-500": 990,
}  # fmt: skip

LATENCY_SECONDS = (0.010, 0.120)
REFUSAL_PROBABILITY = 0.2

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (run INTEGER PRIMARY KEY, pid INTEGER, started_at REAL);
-- Every request that arrived. answer: done (the first time), repeated (known key), refused (try again).
CREATE TABLE IF NOT EXISTS requests (run INTEGER, order_id TEXT, step TEXT, key TEXT, answer TEXT, at REAL);
CREATE INDEX IF NOT EXISTS requests_by_key ON requests (key);
-- What the requests brought about, once per key.
CREATE TABLE IF NOT EXISTS effects (key TEXT PRIMARY KEY, order_id TEXT, step TEXT, cents INTEGER, subject TEXT);
-- Every step result a workflow went on with, whether its body ran or its checkpoint was read.
CREATE TABLE IF NOT EXISTS results (run INTEGER, order_id TEXT, step TEXT, started_at REAL, ended_at REAL);
"""


class PaymentProviderUnavailable(Exception):
    """The payment provider refused the request without doing anything."""


class World:
    """One running application's connection to the outside world.

    Args:
        path: The SQLite file; made if absent.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False)
        # The demo kills the process, not the machine: what was written stays, synced or not.
        self._db.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; {SCHEMA}")
        with self._db:
            row = (os.getpid(), time.time())
            self.run = self._db.execute("INSERT INTO runs (pid, started_at) VALUES (?, ?)", row).lastrowid

    def prices_cents(self, key: str) -> dict[str, int]:
        self._request(key, "validate")
        return CATALOGUE_CENTS

    def reserve(self, key: str, items: list[dict[str, Any]]) -> str:
        """Set the articles aside; returns the reservation's number."""
        return self._request(key, "reserve")

    def charge(self, key: str, card_token: str, cents: int) -> str:
        """Charge the card; returns the receipt's number. One request in five is refused."""
        return self._request(key, "charge", cents, refusal_probability=REFUSAL_PROBABILITY)

    def ship(self, key: str, customer: dict[str, str], reservation: str) -> str:
        """Hand the parcel over; returns the tracking number."""
        return self._request(key, "ship")

    def mail(self, key: str, address: str, order_id: str, status: str) -> str:
        """Send a mail; returns its number."""
        return self._request(key, "mail", subject=f"{order_id} {status}")

    def report(self, key: str) -> str:
        """File a report of what was sold so far; returns its number."""
        return self._request(key, "report")

    def note_result(self, order_id: str, step: str, started_at: float) -> None:
        """Write down that the workflow goes on with the result of a step, wherever it came from."""
        with self._lock, self._db:
            result = (self.run, order_id, step, started_at, time.time())
            self._db.execute("INSERT INTO results VALUES (?, ?, ?, ?, ?)", result)

    def _request(
        self, key: str, step: str, cents: int = 0, refusal_probability: float = 0.0, subject: str | None = None
    ) -> str:
        """Travel there, be written down, take effect, travel back. A kill may fall anywhere in between."""
        there_seconds, back_seconds = (random.uniform(*LATENCY_SECONDS) / 2 for _ in range(2))
        time.sleep(there_seconds)
        with self._lock, self._db:
            answer = self._answer(key, step, cents, refusal_probability, subject)
            request = (self.run, key.partition("/")[0], step, key, answer, time.time())
            self._db.execute("INSERT INTO requests VALUES (?, ?, ?, ?, ?, ?)", request)
        time.sleep(back_seconds)
        if answer == "refused":
            raise PaymentProviderUnavailable(f"{key}: try again")
        return f"{step}-{hashlib.sha256(key.encode()).hexdigest()[:10]}"

    def _answer(self, key: str, step: str, cents: int, refusal_probability: float, subject: str | None) -> str:
        (requests,) = self._db.execute("SELECT count(*) FROM requests WHERE key = ?", (key,)).fetchone()
        if random.Random(f"{key} {requests}").random() < refusal_probability:
            return "refused"
        effect = (key, key.partition("/")[0], step, cents, subject)
        is_new = self._db.execute("INSERT OR IGNORE INTO effects VALUES (?, ?, ?, ?, ?)", effect).rowcount
        return "done" if is_new else "repeated"
