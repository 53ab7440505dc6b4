"""A client of one implementation and an application of the other; and rows that are the same."""

from __future__ import annotations

from typing import Any

import pytest

from interop.sides import Databases, Side
from interop.test_interop import QUEUES, SCHEDULES, TABLES, same_rows


def running(side: Side) -> Side:
    return side.running("client.py")


def test_the_clients_leave_the_same_rows(databases: Databases, ours: Side, incumbent: Side) -> None:
    left, right = databases.fresh(), databases.fresh()
    answers = []
    for side, url in ((running(ours), left), (running(incumbent), right)):
        side.answer(url, "make")
        answers.append(side.answer(url, "enqueue"))
    assert answers[0] == answers[1]
    ids = answers[0]["ids"]
    # Notes by which ours finds its rows and ways back, as in the other tests.
    notes: list[dict[str, Any]] = [{"row": ["bounced"], "creator_xid": ("set", None)}]
    notes += [{"row": ["none-yet"], "request": ('{"dbos.queue":"nobody-serves-this"}', None)}]
    notes += [{"row": [workflow_id], "creator_xid": ("set", None)} for workflow_id in sorted(ids)]
    deliberate: dict[str, Any] = {"workflow_status": notes}
    same_rows(left, right, TABLES | QUEUES | SCHEDULES, deliberate)


@pytest.mark.parametrize("direction", ["ours-to-incumbent", "incumbent-to-ours"])
def test_the_client_of_one_uses_the_application_of_the_other(
    databases: Databases, ours: Side, incumbent: Side, direction: str
) -> None:
    sides = [running(ours), running(incumbent)]
    using, serving = sides if direction == "ours-to-incumbent" else sides[::-1]
    found = []
    for application in (serving, using):
        url = databases.fresh()
        with application.started(url, "serve") as process:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "ready"
            found.append(using.answer(url, "use"))
    assert found[0] == found[1]
    assert found[0]["result"] == 10
    assert found[0]["async"] == [1, 3, 5, 7, 9]
