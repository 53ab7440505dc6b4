"""Who has the write lock of a SQLite file: this process itself, or another one.

SQLite only says that the file is locked. Linux tells more: in write-ahead mode a writer has byte 120 of the file
`<database>-shm` locked, and /proc/locks lists the locks of every process. The files are not opened for this, since
closing one gives up all locks of the process on it.
"""

from __future__ import annotations

import os

WRITE_LOCK_BYTE = 120


def held_by_this_process(path: str) -> bool:
    """Whether a connection of this process has the write lock of the file now; False also where nobody can tell."""
    try:
        inode = os.stat(path + "-shm").st_ino
        with open("/proc/locks", encoding="ascii") as locks:
            lines = [line.split() for line in locks]
    except (OSError, ValueError):
        return False
    own = str(os.getpid())
    for fields in lines:
        # 1: POSIX ADVISORY WRITE <process> <device>:<device>:<inode> <first> <last>; blocked ones have "->" in between.
        if len(fields) == 8 and fields[3] == "WRITE" and fields[4] == own and _covers(fields, inode):
            return True
    return False


def _covers(fields: list[str], inode: int) -> bool:
    _, _, locked = fields[5].rpartition(":")
    last = fields[7]
    return (
        locked == str(inode) and int(fields[6]) <= WRITE_LOCK_BYTE and (last == "EOF" or int(last) >= WRITE_LOCK_BYTE)
    )
