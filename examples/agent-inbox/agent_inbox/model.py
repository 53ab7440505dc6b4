"""What would be a language model: it plans, and writes token by token. The same letter gives the same text.

It picks sentences from `data.json`. An agent with a real model calls it in these two places and changes nothing else.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import AsyncIterator

from .desk import DATA, Letter

TOKEN_SECONDS = float(os.environ.get("INBOX_TOKEN_SECONDS", "0.05"))


async def plan(letter: Letter) -> list[str]:
    """The tools to use for this letter, in order."""
    await asyncio.sleep(5 * TOKEN_SECONDS)
    return list(DATA["plans"][letter["topic"]])


async def write(letter: Letter, findings: dict[str, str]) -> AsyncIterator[str]:
    """The answer, token by token."""
    facts = {
        **DATA["orders"][letter["order"]],
        "sender": letter["sender"].split()[0],
        "fact": findings.get("read the product sheet", ""),
    }
    paragraphs = [_pick(part, letter["id"]).format(**facts) for part in ("opening", letter["topic"], "closing")]
    for token in re.findall(r"\S+\s*", "\n\n".join(paragraphs)):
        await asyncio.sleep(TOKEN_SECONDS)
        yield token


def _pick(part: str, letter_id: str) -> str:
    choices: list[str] = DATA["drafts"][part]
    return choices[hashlib.sha256(f"{part} {letter_id}".encode()).digest()[0] % len(choices)]
