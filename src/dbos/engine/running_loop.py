"""Whether this thread runs an event loop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop this thread runs, if any."""
    # Not imported: before anybody has imported asyncio, no loop runs.
    asyncio = sys.modules.get("asyncio")
    try:
        return None if asyncio is None else asyncio.get_running_loop()
    except RuntimeError:
        return None


def refuse_running_loop(name: str) -> None:
    """Raise RuntimeError when called on a thread that runs an event loop, which the call would block."""
    if running_loop() is not None:
        raise RuntimeError(f"{name}() was called while an event loop is running. Use await {name}_async(...) instead.")
