"""What code of a cancelled workflow meets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dbos import DBOS, SetWorkflowID
from tests.helpers import Gate, rows, wait_until


def error_after_cancellation(database_url: str, operation: Callable[[], Any], *, in_step: bool) -> BaseException:
    """What `operation` raises in workflow `w`, which another process has cancelled: only the database tells."""
    errors: list[BaseException] = []
    began, cancelled = Gate(), Gate()

    def work() -> None:
        began.open()
        cancelled.wait()
        try:
            operation()
        except BaseException as error:
            errors.append(error)
            raise

    step = DBOS.step()(work)

    @DBOS.workflow()
    def workflow() -> None:
        (step if in_step else work)()

    with SetWorkflowID("w"):
        DBOS.start_workflow(workflow)
    began.wait()
    rows(database_url, "UPDATE workflow_status SET status = 'CANCELLED', owner_xid = NULL WHERE workflow_uuid = 'w'")
    cancelled.open()
    (error,) = wait_until(lambda: errors)
    return error
