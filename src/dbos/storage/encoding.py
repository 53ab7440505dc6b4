"""Records as the JSON text in which they travel to the database."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from .store import StoreRefused

Row = tuple[Any, ...]

# Characters stay as they are, so that half a surrogate pair, which no database holds, is refused on its way there.
encode_json = json.JSONEncoder(separators=(",", ":"), check_circular=False, ensure_ascii=False).encode

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def encode_rows(rows: Sequence[dict[str, Any]]) -> str:
    """The records of a batch as one JSON text; StoreRefused for a NUL character, where SQLite would cut the text."""
    text = encode_json(rows)
    if "\\u0000" in text and _NUL.search(text):
        raise StoreRefused(NUL_FOUND)
    return text


NUL_FOUND = "a text contains a NUL character, which databases cannot store"

# News for other processes name a workflow and a key of it by one text. It is a hint only, should either contain this.
PAIR_SEPARATOR = "\x1e"


def pair(workflow_id: str, key: str) -> str:
    return f"{workflow_id}{PAIR_SEPARATOR}{key}"
