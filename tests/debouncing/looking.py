"""What tests of debouncing look at, and a period in which nothing starts by itself."""

from __future__ import annotations

from typing import Any

from dbos import DBOS
from tests.helpers import rows

# Far enough away that nothing starts by itself.
LONG = 10_000.0


def start_now(workflow_id: str) -> None:
    DBOS.set_workflow_delay(workflow_id, delay_until_epoch_ms=0)


def stored_inputs(workflow_id: str) -> Any:
    status = DBOS.get_workflow_status(workflow_id)
    assert status is not None
    assert status.input is not None
    return (*status.input["args"], *status.input["kwargs"].values())


def workflows(database_url: str) -> list[dict[str, Any]]:
    return rows(database_url, "SELECT * FROM workflow_status")
