"""Managing workflows through a client; the operations are those of the application."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from ...engine.plans import Plan
from ..management import (
    cancel_many,
    cancel_one,
    delete_many,
    delete_one,
    fork,
    move_start,
    resume_many,
    resume_one,
    rewind,
    update_attributes,
)
from .handles import ClientAsyncHandle, ClientHandle
from .session import HasSession, Session, blocking, describe, twin

if TYPE_CHECKING:
    from ...engine.core import Core

P = ParamSpec("P")
T = TypeVar("T")
H = TypeVar("H")


def _handle(session: Session, workflow_id: str) -> ClientHandle[Any]:
    return ClientHandle(session, workflow_id)


def _async_handle(session: Session, workflow_id: str) -> ClientAsyncHandle[Any]:
    return ClientAsyncHandle(session, workflow_id)


def _handles(session: Session, workflow_ids: list[str]) -> list[ClientHandle[Any]]:
    return [ClientHandle(session, workflow_id) for workflow_id in workflow_ids]


def _async_handles(session: Session, workflow_ids: list[str]) -> list[ClientAsyncHandle[Any]]:
    return [ClientAsyncHandle(session, workflow_id) for workflow_id in workflow_ids]


def _giving(
    name: str, operation: Callable[Concatenate[Core, P], Plan[T]], handle: Callable[[Session, T], H]
) -> Callable[Concatenate[Any, P], H]:
    """The blocking form of an operation, whose callers get handles on the workflows that it names."""

    def call(self: HasSession, /, *args: P.args, **kwargs: P.kwargs) -> H:
        session = self._session
        return handle(session, session.call(lambda core: operation(core, *args, **kwargs), takes_id=True))

    describe(call, name, operation)
    return call


def _giving_async(
    name: str, operation: Callable[Concatenate[Core, P], Plan[T]], handle: Callable[[Session, T], H]
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, H]]:
    """The async form of the same operation."""

    async def call(self: HasSession, /, *args: P.args, **kwargs: P.kwargs) -> H:
        session = self._session
        answer = await session.call_async(lambda core: operation(core, *args, **kwargs), takes_id=True)
        return handle(session, answer)

    describe(call, f"{name}_async", operation)
    return call


class ManagementMethods:
    """Cancel, resume, fork, rewind, delete, delay, attributes."""

    _session: Session

    cancel_workflow = blocking("cancel_workflow", cancel_one)
    cancel_workflow_async = twin("cancel_workflow", cancel_one)
    cancel_workflows = blocking("cancel_workflows", cancel_many)
    cancel_workflows_async = twin("cancel_workflows", cancel_many)
    resume_workflow = _giving("resume_workflow", resume_one, _handle)
    resume_workflow_async = _giving_async("resume_workflow", resume_one, _async_handle)
    resume_workflows = _giving("resume_workflows", resume_many, _handles)
    resume_workflows_async = _giving_async("resume_workflows", resume_many, _async_handles)
    fork_workflow = _giving("fork_workflow", fork, _handle)
    fork_workflow_async = _giving_async("fork_workflow", fork, _async_handle)
    rewind_workflow = _giving("rewind_workflow", rewind, _handle)
    rewind_workflow_async = _giving_async("rewind_workflow", rewind, _async_handle)
    delete_workflow = blocking("delete_workflow", delete_one)
    delete_workflow_async = twin("delete_workflow", delete_one)
    delete_workflows = blocking("delete_workflows", delete_many)
    delete_workflows_async = twin("delete_workflows", delete_many)
    set_workflow_delay = blocking("set_workflow_delay", move_start)
    set_workflow_delay_async = twin("set_workflow_delay", move_start)
    update_workflow_attributes = blocking("update_workflow_attributes", update_attributes)
    update_workflow_attributes_async = twin("update_workflow_attributes", update_attributes)
