"""Identity and roles (02 section 18)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from dbos import DBOS, DBOSConfiguredInstance, DBOSContextEnsure, DBOSContextSetAuth, SetWorkflowID
from dbos.error import DBOSNotAuthorizedError, DBOSWorkflowFunctionNotFoundError
from tests.helpers import make_pending, relaunch, replay, rows, status_row

Config = dict[str, Any]
Identity = tuple[Any, Any, Any]


def identity() -> Identity:
    return DBOS.authenticated_user, DBOS.authenticated_roles, DBOS.assumed_role


def test_the_innermost_block_is_in_force_and_can_be_changed(app: type[DBOS]) -> None:
    """02 R182, R183."""
    with DBOSContextSetAuth("outer", ["a"]):
        with DBOSContextSetAuth("inner", ["b"]):
            assert identity() == ("inner", ["b"], None)
            DBOS.set_authentication("changed", ["c", "d"])
            assert identity() == ("changed", ["c", "d"], None)
        assert identity() == ("outer", ["a"], None)


def test_a_workflow_takes_a_copy_of_the_identity_and_the_row_stores_it(app: type[DBOS], database_url: str) -> None:
    """02 R184, R34."""

    @DBOS.workflow()
    def wf() -> Identity:
        found = identity()
        DBOS.set_authentication("changed inside", [])
        return found

    with DBOSContextSetAuth("ada", ["admin", "ünï"]), SetWorkflowID("w"):
        assert wf() == ("ada", ["admin", "ünï"], None)
        assert identity() == ("ada", ["admin", "ünï"], None)
    row = status_row(database_url, "w")
    assert (row["authenticated_user"], json.loads(row["authenticated_roles"])) == ("ada", ["admin", "ünï"])
    with DBOSContextSetAuth("bob", []), SetWorkflowID("v"):
        wf()
    assert status_row(database_url, "v")["authenticated_roles"] is None


def test_a_step_sees_a_snapshot_of_the_identity(app: type[DBOS]) -> None:
    """02 R74, R85."""

    @DBOS.step()
    def step() -> Identity:
        found = identity()
        DBOS.set_authentication("in the step", [])
        return found

    @DBOS.workflow()
    def wf() -> Any:
        DBOS.set_authentication("ada", ["x"])
        return step(), identity()

    assert wf() == (("ada", ["x"], None), ("ada", ["x"], None))


def test_recovery_restores_user_and_roles_but_not_the_assumed_role(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R184."""

    @DBOS.workflow()
    def free() -> Identity:
        return identity()

    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    def guarded() -> Any:
        return identity(), free()

    with DBOSContextSetAuth("ada", ["user", "admin"]), SetWorkflowID("w"):
        assert guarded() == (("ada", ["user", "admin"], "admin"), ("ada", ["user", "admin"], "admin"))
    assert status_row(database_url, "w-1")["assumed_role"] == "admin"
    assert replay(config, "w")[0] == ("ada", ["user", "admin"], "admin")
    make_pending(database_url, "w-1")
    relaunch(config)
    assert DBOS.retrieve_workflow("w-1").get_result() == ("ada", ["user", "admin"], None)


def test_a_missing_identity_and_a_missing_role_are_told_apart(app: type[DBOS]) -> None:
    """02 R186."""

    @DBOS.required_roles(["admin", "boss"])
    @DBOS.workflow(name="guarded")
    def wf() -> Any:
        return DBOS.assumed_role

    with pytest.raises(DBOSNotAuthorizedError, match="authentication") as missing:
        wf()
    assert missing.value.dbos_error_code == 8
    with DBOSContextEnsure(), pytest.raises(DBOSNotAuthorizedError, match="authentication"):
        wf()
    with DBOSContextSetAuth("u", None), pytest.raises(DBOSNotAuthorizedError, match="authentication"):
        wf()
    with DBOSContextSetAuth("u", ["user"]), pytest.raises(DBOSNotAuthorizedError, match="admin") as none_matches:
        wf()
    assert "guarded" in none_matches.value.msg
    # The first in the order of the required list, not of the user's.
    with DBOSContextSetAuth("u", ["boss", "admin"]):
        assert wf() == "admin"


def test_a_denied_direct_call_writes_nothing_and_draws_nothing(app: type[DBOS], database_url: str) -> None:
    """02 R187, R188."""

    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    def guarded() -> None: ...

    @DBOS.required_roles(["admin"])
    @DBOS.step(name="guarded step")
    def guarded_step() -> None: ...

    @DBOS.step(name="s")
    def step() -> None: ...

    @DBOS.workflow()
    def parent() -> None:
        for call in (guarded, guarded_step):
            with pytest.raises(DBOSNotAuthorizedError):
                call()
        step()

    with pytest.raises(DBOSNotAuthorizedError):
        guarded()
    with DBOSContextSetAuth("u", ["user"]), SetWorkflowID("p"):
        parent()
    found = rows(database_url, "SELECT function_id, function_name FROM operation_outputs")
    assert [tuple(row.values()) for row in found] == [(1, "s")]
    assert len(rows(database_url, "SELECT * FROM workflow_status")) == 1


@pytest.mark.parametrize("flavour", ["sync", "async"])
def test_a_denied_background_start_ends_in_error(app: type[DBOS], database_url: str, flavour: str) -> None:
    """02 R188, R189: the start itself returns a handle."""
    runs: list[int] = []

    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    def sync_wf() -> None:
        runs.append(1)

    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    async def async_wf() -> None:
        runs.append(1)

    with DBOSContextSetAuth("u", ["user"]), SetWorkflowID("w"):
        handle = DBOS.start_workflow(sync_wf if flavour == "sync" else async_wf)
    for asked in (handle, DBOS.retrieve_workflow("w")):
        with pytest.raises(DBOSNotAuthorizedError):
            asked.get_result()
    assert status_row(database_url, "w")["status"] == "ERROR"
    assert runs == []


def test_an_allowed_background_start_runs_with_the_assumed_role(app: type[DBOS], database_url: str) -> None:
    """02 R189: the row holds the assumed role of the caller, who has none."""

    @DBOS.required_roles(["admin"])
    @DBOS.workflow()
    def wf() -> Identity:
        return identity()

    with DBOSContextSetAuth("u", ["admin"]), SetWorkflowID("w"):
        assert DBOS.start_workflow(wf).get_result() == ("u", ["admin"], "admin")
    assert status_row(database_url, "w")["assumed_role"] is None


@pytest.mark.parametrize("order", ["above", "below"])
def test_both_orders_of_the_decorators_work_for_sync_and_async(app: type[DBOS], order: str) -> None:
    """02 R190, R244, R273: required_roles is async-aware."""

    def sync_body() -> Any:
        return DBOS.assumed_role

    async def async_body() -> Any:
        await asyncio.sleep(0)
        return DBOS.assumed_role

    roles, workflow = DBOS.required_roles(["admin"]), DBOS.workflow
    if order == "above":
        sync_wf = roles(workflow(name="sync")(sync_body))
        async_wf = roles(workflow(name="async")(async_body))
    else:
        sync_wf = workflow(name="sync")(roles(sync_body))
        async_wf = workflow(name="async")(roles(async_body))
    with DBOSContextSetAuth("u", ["admin"]):
        assert sync_wf() == "admin"
        assert asyncio.run(async_wf()) == "admin"  # type: ignore[arg-type]
        assert DBOS.start_workflow(sync_wf).get_result() == "admin"
        assert DBOS.start_workflow(async_wf).get_result() == "admin"
    with DBOSContextSetAuth("u", ["user"]):
        with pytest.raises(DBOSNotAuthorizedError):
            sync_wf()
        with pytest.raises(DBOSNotAuthorizedError):
            asyncio.run(async_wf())  # type: ignore[arg-type]


def test_class_defaults_apply_unless_a_method_has_its_own_list(app: type[DBOS]) -> None:
    """02 R185: also an empty list replaces the default."""

    @DBOS.default_required_roles(["boss"])
    @DBOS.dbos_class()
    class Office(DBOSConfiguredInstance):
        @DBOS.workflow()
        def default(self) -> Any:
            return DBOS.assumed_role

        @DBOS.required_roles(["clerk"])
        @DBOS.workflow()
        def own(self) -> Any:
            return DBOS.assumed_role

        @DBOS.required_roles([])
        @DBOS.workflow()
        def free(self) -> Any:
            return DBOS.assumed_role

        @staticmethod
        @DBOS.workflow()
        def static() -> Any:
            return DBOS.assumed_role

    office = Office("o")
    assert office.free() is None
    with DBOSContextSetAuth("u", ["clerk"]):
        assert office.own() == "clerk"
        for call in (office.default, Office.static):
            with pytest.raises(DBOSNotAuthorizedError):
                call()
    with DBOSContextSetAuth("u", ["boss"]):
        assert office.default() == "boss"
        assert Office.static() == "boss"
        with pytest.raises(DBOSNotAuthorizedError):
            office.own()


def test_default_required_roles_registers_the_class(app: type[DBOS], database_url: str) -> None:
    """02 R174."""

    @DBOS.default_required_roles([])
    class Office:
        @classmethod
        @DBOS.workflow()
        def wf(cls) -> str:
            return cls.__name__

    with SetWorkflowID("w"):
        assert Office.wf() == "Office"
    assert status_row(database_url, "w")["class_name"] == Office.__qualname__


def test_a_guarded_plain_function_reports_that_it_is_not_registered(app: type[DBOS]) -> None:
    """02 R191."""

    @DBOS.required_roles(["admin"])
    def plain() -> str:
        return "in"

    with DBOSContextSetAuth("u", ["admin"]):
        assert plain() == "in"
    with DBOSContextSetAuth("u", []), pytest.raises(DBOSWorkflowFunctionNotFoundError):
        plain()


def test_a_guarded_step_is_checked_in_workflow_code(app: type[DBOS]) -> None:
    """02 R187."""

    @DBOS.required_roles(["admin"])
    @DBOS.step()
    def step() -> Any:
        return DBOS.assumed_role

    @DBOS.workflow()
    def wf() -> Any:
        return step()

    with DBOSContextSetAuth("u", ["admin"]):
        assert wf() == "admin"
    with DBOSContextSetAuth("u", ["user"]), pytest.raises(DBOSNotAuthorizedError):
        wf()
