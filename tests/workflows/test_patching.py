"""Patches: one workflow, two versions of its code (02 sections 20.1, 20.2)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dbos import DBOS, SetWorkflowID
from dbos.error import DBOSException, DBOSPatchNondeterminismError, DBOSUnexpectedStepError
from tests.helpers import replay, step_names, step_rows

Config = dict[str, Any]


def declare(version: int) -> Any:
    """One workflow in the versions its code goes through."""

    @DBOS.step(name="one")
    def one() -> str:
        return "one"

    @DBOS.step(name="two")
    def two() -> str:
        return "two"

    @DBOS.step(name="three")
    def three() -> str:
        return "three"

    @DBOS.workflow(name="evolving")
    def wf() -> list[str]:
        found = []
        if version == 1:
            found.append(one())
        elif version == 2:
            found.append(three() if DBOS.patch("use three") else one())
        elif version == 3:
            assert DBOS.deprecate_patch("use three")
            found.append(three())
        else:
            found.append(three())
        found.append(two())
        return found

    return wf


def test_a_fresh_workflow_takes_the_new_path_and_a_replay_of_it_too(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R199, R201."""
    wf = declare(2)
    with SetWorkflowID("w"):
        assert wf() == ["three", "two"]
    assert step_names(database_url, "w") == {1: "DBOS.patch-use three", 2: "three", 3: "two"}
    marker = step_rows(database_url, "w")[0]
    assert (marker["output"], marker["error"], marker["child_workflow_id"]) == (None, None, None)
    assert replay(config, "w") == ["three", "two"]
    assert len(step_rows(database_url, "w")) == 3


def test_a_workflow_past_the_point_follows_the_old_path(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R199, R201: no id is drawn."""
    wf = declare(1)
    with SetWorkflowID("w"):
        wf()
    declare(2)
    assert replay(config, "w", steps_until=1) == ["one", "two"]
    assert step_names(database_url, "w") == {1: "one", 2: "two"}


def test_a_workflow_that_has_not_reached_the_point_follows_the_new_path(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R201."""
    wf = declare(1)
    with SetWorkflowID("w"):
        wf()
    declare(2)
    assert replay(config, "w", steps_until=0) == ["three", "two"]
    assert step_names(database_url, "w")[1] == "DBOS.patch-use three"


def test_a_deprecated_patch_skips_the_marker_where_it_stands(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R202: one id if the marker is there, else none; nothing is written."""
    wf = declare(2)
    with SetWorkflowID("marked"):
        wf()
    wf = declare(3)
    with SetWorkflowID("fresh"):
        assert wf() == ["three", "two"]
    assert step_names(database_url, "fresh") == {1: "three", 2: "two"}
    assert replay(config, "marked", steps_until=2) == ["three", "two"]
    assert step_names(database_url, "marked") == {1: "DBOS.patch-use three", 2: "three", 3: "two"}


def test_code_removed_too_early_shows_as_an_unexpected_step(app: type[DBOS], config: Config) -> None:
    """02 R204."""
    wf = declare(2)
    with SetWorkflowID("w"):
        wf()
    declare(4)
    with pytest.raises(DBOSUnexpectedStepError) as unexpected:
        replay(config, "w")
    assert unexpected.value.inputs == ("w", 1, "three", "DBOS.patch-use three")


def test_the_marker_of_another_patch_is_anything_else(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R199."""

    @DBOS.workflow(name="wf")
    def first() -> list[bool]:
        return [DBOS.patch("a")]

    with SetWorkflowID("w"):
        assert first() == [True]

    @DBOS.workflow(name="wf")
    def second() -> list[bool]:
        return [DBOS.patch("b"), DBOS.patch("a"), DBOS.patch("a"), DBOS.deprecate_patch("c")]

    assert replay(config, "w") == [False, True, True, True]
    assert step_names(database_url, "w") == {1: "DBOS.patch-a", 2: "DBOS.patch-a"}


async def test_the_async_forms_do_the_same(app: type[DBOS], config: Config, database_url: str) -> None:
    """02 R198, R199."""

    @DBOS.step(name="s")
    async def step() -> None: ...

    @DBOS.workflow()
    async def wf() -> list[bool]:
        found = [await DBOS.patch_async("a")]
        await step()
        found.append(await DBOS.deprecate_patch_async("b"))
        found.append(await DBOS.patch_async("c"))
        return found

    with SetWorkflowID("w"):
        assert await wf() == [True, True, True]
    assert step_names(database_url, "w") == {1: "DBOS.patch-a", 2: "s", 3: "DBOS.patch-c"}
    assert await asyncio.to_thread(replay, config, "w") == [True, True, True]


def test_patches_work_only_in_workflow_code(app: type[DBOS]) -> None:
    """02 R198: the context is reported, also where there is no application (section 22)."""

    @DBOS.step()
    def step() -> str:
        for call in (lambda: DBOS.patch("p"), lambda: DBOS.deprecate_patch("p")):
            with pytest.raises(DBOSException, match="workflow"):
                call()
        return "checked"

    @DBOS.workflow()
    def wf() -> str:
        return step()

    assert wf() == "checked"
    for call in (lambda: DBOS.patch("p"), lambda: asyncio.run(DBOS.patch_async("p"))):
        with pytest.raises(DBOSException, match="workflow"):
            call()
    DBOS.destroy()
    for call in (lambda: DBOS.patch("p"), lambda: asyncio.run(DBOS.deprecate_patch_async("p"))):
        with pytest.raises(DBOSException, match="workflow"):
            call()


async def test_the_sync_forms_refuse_a_running_loop(app: type[DBOS]) -> None:
    """02 R198, R212."""

    @DBOS.workflow()
    async def wf() -> str:
        for name in ("patch", "deprecate_patch"):
            with pytest.raises(RuntimeError, match=f"{name}_async"):
                getattr(DBOS, name)("p")
        return "checked"

    assert await wf() == "checked"


def test_a_patch_beside_other_operations_is_deterministic_or_refused(
    app: type[DBOS], config: Config, database_url: str
) -> None:
    """02 R203: whatever ran beside it, the recorded ids are those of a fixed order or the patch says it cannot be."""

    @DBOS.step(name="s")
    async def step(value: int) -> int:
        return value

    @DBOS.workflow()
    async def wf() -> list[Any]:
        return await asyncio.gather(DBOS.patch_async("p"), step(1), return_exceptions=True)

    with SetWorkflowID("w"):
        first = DBOS.start_workflow(wf).get_result()
    names = step_names(database_url, "w")
    if isinstance(first[0], DBOSPatchNondeterminismError):
        assert first[0].inputs[:2] == ("w", "DBOS.patch-p")
    else:
        assert names == {1: "DBOS.patch-p", 2: "s"}
        assert replay(config, "w") == [True, 1]


def test_enable_patching_sets_the_version_and_warns(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    """02 R205: deprecated; patching does not depend on it."""
    unversioned = {key: value for key, value in config.items() if key != "application_version"}
    DBOS(config={**unversioned, "enable_patching": True})  # type: ignore[typeddict-item]
    DBOS.launch()
    assert DBOS.application_version == "PATCHING_ENABLED"
    DBOS.destroy()
    DBOS(config={**config, "enable_patching": True})  # type: ignore[typeddict-item]
    DBOS.launch()
    assert DBOS.application_version == "v1"
    DBOS.destroy(destroy_registry=True)
