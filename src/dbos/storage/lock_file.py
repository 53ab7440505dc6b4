"""Which processes on a SQLite file are alive: each has a byte of a file beside it locked.

The kernel unlocks the byte when the process ends, however it ends, and not before: one that is stopped keeps it. The
file is empty, since what is locked need not exist, and stays. As with SQLite's own locks, closing the file anywhere in
a process gives up all locks of that process, so a process opens it once (`_open_files`), and every look takes the lock
again in case somebody else has copied the file here.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

from ..ids import process_key

# The C library of Windows counts positions in 32 bits.
POSITIONS = 2**31 - 1 if sys.platform == "win32" else 2**62


class LockFile:
    """The file of one database, with the bytes that this process has locked."""

    def __init__(self, path: str, mode: int) -> None:
        self._path = path
        self._mode = mode
        self._file = self._open()
        self._locked: set[str] = set()

    def _open(self) -> int:
        exists = os.path.exists(self._path)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), self._mode)
        if not exists:
            # Whoever may open the database may lock here, whatever the umask of this process.
            with suppress(OSError):
                os.chmod(self._path, self._mode)
        return file

    def add(self, process: str) -> None:
        """Lock the byte of a process that runs here; OSError where files cannot be locked."""
        lock(self._file, process_key(process) % POSITIONS, shared=False)
        self._locked.add(process)

    def remove(self, process: str) -> bool:
        """Unlock its byte; whether nobody is left, and the file closed."""
        self._locked.discard(process)
        if self._locked:
            unlock(self._file, process_key(process) % POSITIONS)
            return False
        os.close(self._file)
        return True

    def is_alive(self, process: str) -> bool:
        """Whether the byte of a process is locked."""
        if process in self._locked:
            return True
        position = process_key(process) % POSITIONS
        try:
            # Shared, so that others who ask at the same time do not take each other for it.
            lock(self._file, position, shared=True)
        except OSError:
            return True
        unlock(self._file, position)
        return False

    def renew(self) -> None:
        """Take every lock again, in the file that is there now; OSError when that cannot be done."""
        if not self._is_current():
            old, self._file = self._file, self._open()
            os.close(old)
        for process in self._locked:
            lock(self._file, process_key(process) % POSITIONS, shared=False)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except FileNotFoundError:
            return False


_open_files: dict[str, LockFile] = {}
_guard = threading.RLock()


class Presence:
    """The place of one process in the lock file of a database, until `close`."""

    def __init__(self, database_path: str, process: str) -> None:
        self._path = lock_file_path(os.path.realpath(database_path))
        self._process = process
        with _guard:
            found = _open_files.get(self._path)
            if found is None:
                found = LockFile(self._path, os.stat(database_path).st_mode & 0o666)
            try:
                found.add(process)
            except OSError:
                found.remove(process)
                raise
            _open_files[self._path] = found

    def find_dead(self, processes: list[str]) -> list[str]:
        """Those of the processes that have ended."""
        with _guard:
            file = _open_files.get(self._path)
            if file is None:
                return []
            try:
                file.renew()
            except OSError:
                # Whoever cannot be seen does not judge others.
                return []
            return [process for process in processes if not file.is_alive(process)]

    def close(self) -> None:
        """From now on the process counts as ended."""
        with _guard:
            file = _open_files.get(self._path)
            if file is not None and file.remove(self._process):
                del _open_files[self._path]


def lock_file_path(database_path: str) -> str:
    return database_path + "-workers"


if sys.platform == "win32":
    import msvcrt

    def lock(file: int, position: int, *, shared: bool) -> None:
        os.lseek(file, position, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

    def unlock(file: int, position: int) -> None:
        os.lseek(file, position, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def lock(file: int, position: int, *, shared: bool) -> None:
        """Lock one byte; OSError (EAGAIN, EACCES) when another process has it."""
        fcntl.lockf(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB, 1, position)

    def unlock(file: int, position: int) -> None:
        fcntl.lockf(file, fcntl.LOCK_UN, 1, position)
