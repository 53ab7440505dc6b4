"""The management calls of an application and of a client, in their blocking and in their async forms."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from dbos import DBOS, DBOSClient


class Side:
    """`side.cancel_workflow("w")` is one of the four forms of that call."""

    def __init__(self, target: type[DBOS] | DBOSClient, *, is_async: bool) -> None:
        self._target = target
        self._is_async = is_async
        self.is_client = isinstance(target, DBOSClient)

    def __repr__(self) -> str:
        return f"{'client' if self.is_client else 'DBOS'}{' async' if self._is_async else ''}"

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._target, f"{name}_async" if self._is_async else name)
        return lambda *args, **kwargs: done(call(*args, **kwargs))


def done(answer: Any) -> Any:
    """What a call returns, or its coroutine; of an async handle too."""
    if not asyncio.iscoroutine(answer):
        return answer

    async def wait() -> Any:
        return await answer

    return asyncio.run(wait())
