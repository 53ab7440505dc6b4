"""What an application may choose about formats: stricter JSON, listed classes, results as they are stored."""

from __future__ import annotations

import asyncio
import base64
import json
import pickle
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import pytest

from dbos import (
    DBOS,
    DBOSClient,
    DBOSPortableJSONSerializer,
    PortableWorkflowError,
    SetWorkflowID,
    WorkflowSerializationFormat,
)
from dbos.storage.store import StoreRefused
from tests.helpers import rows
from tests.samples import AppError
from tests.workflows.test_serialization_formats import payloads

Config = dict[str, Any]
PORTABLE = WorkflowSerializationFormat.PORTABLE


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_the_first_caller_gets_the_decoded_form_too_if_so_wanted(app: type[DBOS], flavour: str) -> None:
    """04 section 11, 26, and 12, 14: of values and errors, from calls and handles."""

    def body(fail: bool) -> Any:
        if fail:
            raise AppError("broken")
        return (1, datetime(2025, 1, 2, tzinfo=timezone.utc))

    async def async_body(fail: bool) -> Any:
        return body(fail)

    decorate = DBOS.workflow(name="wf", serialization_type=PORTABLE, stored_result=True)
    wf: Any = decorate(body) if flavour == "sync" else decorate(async_body)

    def call(fail: bool) -> Any:
        return wf(fail) if flavour == "sync" else asyncio.run(wf(fail))

    stored = [1, "2025-01-02T00:00:00.000Z"]
    with SetWorkflowID("good"):
        assert call(False) == stored
    assert DBOS.start_workflow(wf, False).get_result() == stored
    assert DBOS.get_result("good") == stored
    for attempt in (lambda: call(True), DBOS.start_workflow(wf, True).get_result):
        with pytest.raises(PortableWorkflowError) as raised:
            attempt()
        assert (raised.value.name, raised.value.message) == ("AppError", "broken")


def test_a_stored_result_that_the_database_refuses_is_an_error_for_the_first_caller_too(
    app: type[DBOS], monkeypatch: pytest.MonkeyPatch
) -> None:
    """04 section 12, 14: what is delivered is what was recorded in the end."""
    engine = app(config=None).engine
    assert engine is not None
    commit = engine.store.commit

    def refusing(records: Any) -> Any:
        if any(getattr(record, "output", None) == '"too much"' for record in records):
            raise StoreRefused("no room for it")
        return commit(records)

    monkeypatch.setattr(engine.store, "commit", refusing)

    @DBOS.workflow(serialization_type=PORTABLE, stored_result=True)
    def wf() -> str:
        return "too much"

    with SetWorkflowID("w"), pytest.raises(PortableWorkflowError, match="no room for it"):
        wf()
    with pytest.raises(PortableWorkflowError, match="no room for it"):
        DBOS.start_workflow(wf).get_result()


def test_portable_workflows_are_written_by_the_portable_serializer(config: Config, database_url: str) -> None:
    """04 section 12, 13: arguments, results and events; steps stay pickled."""
    chosen = DBOSPortableJSONSerializer(finite_numbers=True, more_types=True)
    DBOS(config={**config, "portable_serializer": chosen})  # type: ignore[typeddict-item]

    @DBOS.step()
    def step() -> float:
        return float("nan")

    @DBOS.workflow(serialization_type=PORTABLE, name="strict")
    def wf(order: UUID) -> float:
        DBOS.set_event("k", order)
        return step()

    DBOS.launch()
    with SetWorkflowID("w"), pytest.raises(ValueError, match="The number nan is not portable JSON"):
        wf(UUID(int=1))
    name, inputs, _, error = payloads(database_url, "w")
    assert (name, inputs) == ("portable_json", f'{{"namedArgs":{{}},"positionalArgs":["{UUID(int=1)}"]}}')
    assert json.loads(error)["name"] == "ValueError"
    with DBOSClient(system_database_url=database_url, portable_serializer=chosen) as client:
        assert client.get_event("w", "k") == str(UUID(int=1))
        with pytest.raises(ValueError, match="nan"):
            client.send("w", float("nan"), serialization_type=PORTABLE)
    DBOS.destroy(destroy_registry=True)


class Unlisted:
    """What a program may store, if it may be read."""


def test_only_listed_classes_are_read_from_the_database(config: Config, database_url: str) -> None:
    """04 section 11, 33, and 12, 15: what somebody else has put there is refused, and what could not be read is too."""
    DBOS(config={**config, "unpickle_only": ["tests.samples"]})  # type: ignore[typeddict-item]

    @DBOS.workflow(name="wf")
    def wf(value: Any) -> Any:
        if isinstance(value, str):
            raise AppError(value)
        return Unlisted() if value == 2 else value

    DBOS.launch()
    for workflow_id, value in (("fine", 1), ("failed", "listed"), ("unlisted", 2)):
        with SetWorkflowID(workflow_id):
            DBOS.start_workflow(wf, value)
    assert DBOS.retrieve_workflow("fine").get_result() == 1
    with pytest.raises(AppError, match="listed"):
        DBOS.get_result("failed")
    with pytest.raises(pickle.UnpicklingError, match=r"it names tests\.workflows\.\S+\.Unlisted, which is not among"):
        DBOS.get_result("unlisted")
    rows(
        database_url,
        "UPDATE workflow_output SET output = %s WHERE workflow_uuid = 'fine'",
        base64.b64encode(pickle.dumps(Unlisted())).decode(),
    )
    with DBOSClient(system_database_url=database_url, unpickle_only=[]) as client:
        for read in (client.retrieve_workflow("fine").get_result, DBOS.retrieve_workflow("fine").get_result):
            with pytest.raises(
                pickle.UnpicklingError, match=r"The output of workflow fine .* cannot be read: it names"
            ):
                read()
    DBOS.destroy(destroy_registry=True)


@pytest.mark.usefixtures("dbos_log")
def test_what_a_listing_cannot_read_is_shown_as_stored(
    app: type[DBOS], database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """04 R626: each field for itself, with a warning that names the workflow; steps too."""

    @DBOS.step()
    def step(fail: bool) -> int:
        if fail:
            raise AppError("a step")
        return 1

    @DBOS.workflow()
    def wf(value: int) -> int:
        step(False)
        with pytest.raises(AppError):
            step(True)
        return value

    with SetWorkflowID("w"):
        wf(1)
    rows(database_url, "UPDATE workflow_input SET inputs = 'no pickle'")
    rows(database_url, "UPDATE operation_outputs SET output = 'neither' WHERE output IS NOT NULL")
    (status,) = DBOS.list_workflows()
    assert (status.input, status.output) == ("no pickle", 1)
    first, second = DBOS.list_workflow_steps("w")
    assert (first["output"], str(second["error"])) == ("neither", "a step")
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len([text for text in warnings if "of workflow w cannot be read back" in text]) == 2
