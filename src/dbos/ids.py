"""Fresh ids."""

from __future__ import annotations

import os
import time

_VERSION_7 = (7 << 76) | (2 << 62)
_FREE_BITS = ((1 << 128) - 1) & ~((0xF << 76) | (3 << 62))


def new_id() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7): 48 bits of milliseconds, then 74 random ones.

    Ids that grow with time keep new rows together in every index over them; with random ones a commit touches as many
    pages of a large database as it has rows. Written out, since `uuid` has version 7 only from Python 3.14 on.
    """
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    digits = f"{number & _FREE_BITS | _VERSION_7:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
