"""Fresh ids."""

from __future__ import annotations

import os
import threading
import time

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
    return _text(number)


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
    return [_text(number) for number in numbers]


def _text(number: int) -> str:
    low = (2 << 62) | (number & 0x3FFF_FFFF_FFFF_FFFF)
    high = (number >> _RANDOM_BITS << 16) | (7 << 12) | (number >> 62 & 0xFFF)
    digits = f"{high << 64 | low:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
