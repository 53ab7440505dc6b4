"""Errors on every way through one fallback (04 section 12.12): the caller always gets the original exception, storage
the nearest thing that can be read back, so that a replay meets an error at the same place."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dbos import DBOS, Debouncer, PortableWorkflowError, Serializer, SetEnqueueOptions, SetWorkflowID
from dbos.error import (
    DBOSNonExistentWorkflowError,
    DBOSQueueDeduplicatedError,
    DBOSStreamEndedError,
    DBOSStreamTimeoutError,
)
from tests.helpers import replay, rows, step_rows
from tests.samples import LockedError

Config = dict[str, Any]


class PlainJson(Serializer):
    """Knows no exceptions."""

    def serialize(self, data: Any) -> str:
        return json.dumps(data)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)

    def name(self) -> str:
        return "plain_json"


@pytest.fixture(params=[None, PlainJson()], ids=["pickle", "json"])
def launched(config: Config, request: pytest.FixtureRequest) -> Iterator[Config]:
    """An application with a serializer that cannot store `LockedError`: its configuration."""
    with_serializer = {**config, "serializer": request.param}
    DBOS(config=with_serializer)  # type: ignore[arg-type]
    DBOS.launch()
    yield with_serializer
    DBOS.destroy(destroy_registry=True)


@pytest.fixture
def json_app(config: Config) -> Iterator[Config]:
    with_serializer = {**config, "serializer": PlainJson()}
    DBOS(config=with_serializer)  # type: ignore[arg-type]
    DBOS.launch()
    yield with_serializer
    DBOS.destroy(destroy_registry=True)


def seen(error: Exception) -> str:
    """What a body saw: the class, and for a stand-in of a serializer without exceptions the name that was kept."""
    return f"{getattr(error, 'name', type(error).__name__)}: {error}"


def stand_in(config: Config) -> str:
    return "LockedError: broken" if config["serializer"] else "Exception: LockedError: broken"


WAYS: dict[str, Callable[[], Any]] = {}


def declare_failing() -> None:
    """Ways in which a workflow gets at an exception that cannot be stored, and the step that records it."""

    @DBOS.step(name="failing step")
    def step() -> None:
        raise LockedError("broken")

    @DBOS.step(name="failing async step")
    async def async_step() -> None:
        raise LockedError("broken")

    @DBOS.workflow(name="failing child")
    def child() -> None:
        raise LockedError("broken")

    @DBOS.workflow(name="failing async child")
    async def async_child() -> None:
        raise LockedError("broken")

    async def by_async_handle() -> None:
        await (await DBOS.start_workflow_async(async_child)).get_result()

    WAYS.update(
        {
            "step": step,
            "async step": async_step,
            "child": child,
            "async child": async_child,
            "handle": lambda: DBOS.start_workflow(child).get_result(),
            "async handle": by_async_handle,
        }
    )

    @DBOS.workflow(name="parent")
    def parent(way: str) -> str:
        try:
            WAYS[way]()
        except Exception as error:
            return seen(error)
        return "no error"

    @DBOS.workflow(name="async parent")
    async def async_parent(way: str) -> str:
        try:
            await WAYS[way]()
        except Exception as error:
            return seen(error)
        return "no error"

    WAYS["parent"], WAYS["async parent"] = parent, async_parent


@pytest.mark.parametrize("way", ["step", "child", "handle"])
@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_the_body_gets_the_original_and_a_replay_its_stand_in(
    launched: Config, database_url: str, way: str, flavour: str
) -> None:
    """02 R68, R94: steps, direct children, results of handles; what the child has stored is not asked again."""
    declare_failing()
    if flavour == "async":
        way = f"async {way}"

    with SetWorkflowID("p"):
        found = asyncio.run(WAYS["async parent"](way)) if flavour == "async" else WAYS["parent"](way)
    assert found == "LockedError: broken"
    recorded = step_rows(database_url, "p")[-1]
    assert recorded["function_name"] == ("DBOS.getResult" if "step" not in way else f"failing {way}")
    assert recorded["error"] is not None
    assert recorded["serialization"] == ("plain_json" if launched["serializer"] else "py_pickle")
    rows(database_url, "UPDATE workflow_output SET error = 'changed' WHERE workflow_uuid <> 'p'")
    assert replay(launched, "p") == stand_in(launched)


def test_the_result_of_a_workflow_asked_for_by_its_id_is_recorded_too(launched: Config, database_url: str) -> None:
    """02 R94: `DBOS.get_result`, whose error comes from storage already."""
    declare_failing()

    @DBOS.workflow()
    def asking() -> str:
        try:
            DBOS.get_result("failed")
        except Exception as error:
            return seen(error)
        return "no error"

    with SetWorkflowID("failed"), pytest.raises(LockedError):
        WAYS["child"]()
    with SetWorkflowID("p"):
        assert asking() == stand_in(launched)
    rows(database_url, "DELETE FROM workflow_status WHERE workflow_uuid = 'failed'")
    assert replay(launched, "p") == stand_in(launched)


def test_errors_of_the_library_keep_class_and_attributes_in_a_serializer_without_exceptions(
    json_app: Config, database_url: str
) -> None:
    """A replay goes the way of the first run through `except DBOSNonExistentWorkflowError` and the like."""

    @DBOS.workflow(name="target")
    def target() -> None: ...

    DBOS.register_queue("q")

    def duplicate() -> None:
        with SetEnqueueOptions(deduplication_id="held"):
            DBOS.enqueue_workflow("q", target)

    calls: list[tuple[Callable[[], Any], type[Exception]]] = [
        (lambda: DBOS.resume_workflow("absent"), DBOSNonExistentWorkflowError),
        (lambda: DBOS.fork_workflow("absent", 1), DBOSNonExistentWorkflowError),
        (lambda: DBOS.send("absent", 1), DBOSNonExistentWorkflowError),
        (duplicate, DBOSQueueDeduplicatedError),
        (lambda: next(DBOS.read_stream("live", "s", timeout_seconds=0)), DBOSStreamTimeoutError),
        (lambda: DBOS.read_stream_offset("over", "s", 0), DBOSStreamEndedError),
        (lambda: DBOS.get_result("live", timeout_seconds=0), TimeoutError),
    ]

    @DBOS.workflow()
    def wf() -> list[Any]:
        found: list[Any] = []
        for call, kind in calls:
            try:
                call()
            except kind as error:
                found.append([type(error).__name__, str(error), {**vars(error), "__notes__": None}])
        return found

    with SetWorkflowID("over"):
        target()
    with SetWorkflowID("live"), SetEnqueueOptions(delay_seconds=3600, deduplication_id="held"):
        DBOS.enqueue_workflow("q", target)
    with SetWorkflowID("p"):
        first = wf()
    assert [name for name, _, _ in first] == [
        "DBOSNonExistentWorkflowError",
        "DBOSNonExistentWorkflowError",
        "DBOSNonExistentWorkflowError",
        "DBOSQueueDeduplicatedError",
        "DBOSStreamTimeoutError",
        "DBOSStreamEndedError",
        "DBOSResultTimeoutError",
    ]
    recorded = step_rows(database_url, "p")
    assert len(recorded) == len(calls)
    # The end of a stream is recorded as such.
    assert [row["error"] is not None for row in recorded] == [name != "DBOSStreamEndedError" for name, _, _ in first]
    assert {row["serialization"] for row in recorded} == {"plain_json"}
    # What the calls would answer now is something else.
    rows(database_url, "UPDATE workflow_status SET workflow_uuid = 'absent' WHERE workflow_uuid = 'over'")
    assert replay(json_app, "p") == first


def test_a_refused_debounce_is_recorded_in_a_serializer_without_exceptions(json_app: Config, database_url: str) -> None:
    """03 R73 in ours: it fails in a replay as well, though the queue exists by then."""

    @DBOS.workflow(name="target")
    def target(number: int) -> None: ...

    @DBOS.workflow()
    def wf() -> str:
        try:
            Debouncer.create(target, queue="later").debounce("key", 1, 1)
        except Exception as error:
            return str(error)
        return "accepted"

    with SetWorkflowID("p"):
        refused = wf()
    assert "'later' is not registered" in refused
    assert [bool(row["error"]) for row in step_rows(database_url, "p")] == [True]
    DBOS.register_queue("later")
    assert replay(json_app, "p") == refused


def test_the_end_of_a_workflow_is_stored_with_the_class_of_an_error_of_the_library(json_app: Config) -> None:
    """Who asks later catches what the first caller could catch; errors of others keep name and text."""

    @DBOS.workflow()
    def wf(kind: str) -> None:
        if kind == "ours":
            raise DBOSNonExistentWorkflowError("target", "w")
        raise KeyError(kind)

    ours, theirs = DBOS.start_workflow(wf, "ours"), DBOS.start_workflow(wf, "theirs")
    with pytest.raises(DBOSNonExistentWorkflowError) as found:
        DBOS.get_result(ours.workflow_id)
    assert (found.value.destination, found.value.destination_id) == ("target", "w")
    with pytest.raises(PortableWorkflowError) as kept:
        DBOS.get_result(theirs.workflow_id)
    assert kept.value.name == "KeyError"
