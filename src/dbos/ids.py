"""Fresh ids, and owner tokens that tell which process made them."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable

_RANDOM_BITS = 74
_RANDOM = (1 << _RANDOM_BITS) - 1
_STEP = (1 << 48) - 1

# Reentrant: a signal handler may need an id while the thread it interrupted makes one.
_lock = threading.RLock()
_last = 0


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7), greater than all that this process has made before.

    48 bits of milliseconds, then 74 random ones; within a millisecond the number before plus a random step (section
    6.2, method 2), so that workflows enqueued one after the other stay in that order. Ids that grow with time also keep
    new rows together in every index over them: with random ones a commit touches as many pages of a large database as
    it has rows. Written out, since `uuid` has version 7 only from Python 3.14 on.
    """
    global _last
    random = int.from_bytes(os.urandom(10), "big")
    number = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | (random & _RANDOM)
    with _lock:
        if number <= _last:
            number = _last + 1 + (random & _STEP)
        _last = number
    return _written(number)


def new_ids(count: int) -> list[str]:
    """So many new ids, each greater than the one before; made together they cost a third."""
    global _last
    random = os.urandom(10 + 6 * count)
    number = (time.time_ns() // 1_000_000 << _RANDOM_BITS) | (int.from_bytes(random[:10], "big") & _RANDOM)
    steps = [int.from_bytes(random[i : i + 6], "big") for i in range(10, len(random), 6)]
    with _lock:
        number = max(number, _last)
        numbers = [number := number + 1 + step for step in steps]
        _last = number
    return [_written(number) for number in numbers]


def id_made_at(time_ms: int) -> str:
    """A UUID of version 7 for a given time, in milliseconds since the epoch; any two differ."""
    return _written((time_ms << _RANDOM_BITS) | (int.from_bytes(os.urandom(10), "big") & _RANDOM))


def time_of_id(text: str) -> int | None:
    """The time in a UUID of version 7, in milliseconds since the epoch; None for any other id."""
    if len(text) != 36 or text[14] != "7":
        return None
    try:
        return int(text[:8] + text[9:13], 16)
    except ValueError:
        return None


def _written(number: int) -> str:
    low = (2 << 62) | (number & 0x3FFF_FFFF_FFFF_FFFF)
    high = (number >> _RANDOM_BITS << 16) | (7 << 12) | (number >> 62 & 0xFFF)
    digits = f"{high << 64 | low:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_process() -> str:
    """A name for this process: the first 18 characters of UUIDs of version 8, whose content is free (RFC 9562, 5.8).

    60 bits are random. Other releases make tokens of versions 4 and 7, so theirs are never taken for ours.
    """
    digits = os.urandom(8).hex()
    return f"{digits[:8]}-{digits[8:12]}-8{digits[12:15]}"


def tokens_of(process: str) -> Callable[[], str]:
    """Makes the owner tokens of a process: UUIDs that begin with its name and go on with a number."""
    numbers = itertools.count(1)

    def new_token() -> str:
        number = next(numbers)
        return f"{process}-{0x8000 | number >> 48:04x}-{number & 0xFFFF_FFFF_FFFF:012x}"

    return new_token


def process_key(process: str) -> int:
    """The 60 random bits in the name of a process."""
    return int(process[:14].replace("-", "") + process[15:], 16)
