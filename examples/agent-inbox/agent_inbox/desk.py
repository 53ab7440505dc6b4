"""The coffee desk: letters of customers, the tools an agent looks things up with, and the outbox."""

import json
import os
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict  # for pydantic, which needs that of Python 3.12

DATA: dict[str, Any] = json.loads(Path(__file__).with_name("data.json").read_text(encoding="utf-8"))


class Letter(TypedDict):
    """A letter of a customer."""

    id: str
    sender: str
    subject: str
    text: str
    topic: str
    order: str


LETTERS: dict[str, Letter] = {letter["id"]: letter for letter in DATA["letters"]}


# --- tools


def find_order(letter: Letter) -> str:
    order = DATA["orders"][letter["order"]]
    return f"{order['article']}, {order['price']}, ordered on {order['ordered']}"


def track_parcel(letter: Letter) -> str:
    return str(DATA["orders"][letter["order"]]["parcel"])


def read_policy(letter: Letter) -> str:
    return str(DATA["policies"][letter["topic"]])


def read_product_sheet(letter: Letter) -> str:
    return str(DATA["facts"][DATA["orders"][letter["order"]]["article"]])


TOOLS = {
    "find the order": find_order,
    "track the parcel": track_parcel,
    "read the policy": read_policy,
    "read the product sheet": read_product_sheet,
}


# --- the outbox


def send(directory: Path, key: str, letter: Letter, text: str) -> str:
    """Put a letter into the outbox, once per key: who sends it again under its key finds it there.

    Returns:
        The name of its file.
    """
    directory.mkdir(parents=True, exist_ok=True)
    name = f"{key}.txt"
    draft = directory / f".{name}.{os.getpid()}"
    draft.write_text(f"To: {letter['sender']}\nSubject: Re: {letter['subject']}\n\n{text}\n", encoding="utf-8")
    draft.replace(directory / name)
    return name
