"""Values and errors that tests store, at module level so that they can be pickled."""

from __future__ import annotations

import threading
from typing import Any


class AppError(Exception):
    """An ordinary exception of an application."""


class PickyError(Exception):
    """Pickles, but cannot be read back: its constructor needs more than `args` holds."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code_number = code
        self.detail = detail


class LockedError(Exception):
    """Cannot be pickled at all."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()


class Unpicklable:
    """A value that no serializer here can store."""

    def __reduce__(self) -> Any:
        raise TypeError("this value refuses to be pickled")
