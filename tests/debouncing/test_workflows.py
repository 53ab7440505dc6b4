"""Debouncing in workflow code: what is recorded, replays, gathered calls, lost answers, lost ownership
(03 R152, R158, R159, R161, section 15)."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dbos import DBOS, Debouncer, SetEnqueueOptions, SetWorkflowID
from dbos.api.runtime import state
from dbos.error import DBOSQueueDeduplicatedError
from dbos.storage.store import StoreUnavailable
from dbos.types import INTERNAL_QUEUE_NAME
from tests.debouncing.looking import LONG
from tests.helpers import Gate, make_pending, relaunch, replay, rows, status_row, step_names, step_rows

Config = dict[str, Any]

BOUNCE = "DBOS.debounce_delayed_workflow"
NOBODY = {
    "bounced_workflow_id": None,
    "holder_workflow_id": None,
    "holder_is_debounced": False,
    "holder_workflow_name": None,
    "holder_application_name": None,
}


@pytest.fixture
def debouncer(app: type[DBOS]) -> Debouncer[[Any], Any]:
    """For the workflow `echo`, which returns its argument."""

    @DBOS.workflow(name="echo")
    def echo(value: Any) -> Any:
        return value

    return Debouncer.create(echo)


def outputs(workflow_id: str) -> list[Any]:
    return [step["output"] for step in DBOS.list_workflow_steps(workflow_id)]


def delayed_inputs(workflow_id: str) -> Any:
    status = DBOS.get_workflow_status(workflow_id)
    assert status is not None
    assert status.input is not None
    return status.input["args"]


def everything(database_url: str) -> list[Any]:
    tables = ("workflow_status", "workflow_input", "operation_outputs")
    return [sorted(map(repr, rows(database_url, f"SELECT * FROM {table}"))) for table in tables]


def enqueue_by_hand(echo: Any, deduplication_id: str) -> str:
    with SetEnqueueOptions(deduplication_id=deduplication_id, delay_seconds=LONG):
        return DBOS.enqueue_workflow(INTERNAL_QUEUE_NAME, echo, "by hand").workflow_id


# --- records and replays


def test_a_first_call_takes_two_ids_and_a_bounce_one(
    app: type[DBOS], config: Config, database_url: str, debouncer: Debouncer[[Any], Any]
) -> None:
    """03 R158, R159, and a replay changes nothing."""

    @DBOS.workflow()
    def parent() -> list[str]:
        ids = [debouncer.debounce("key", LONG, number).workflow_id for number in (1, 2, 3)]
        ids.append(debouncer.debounce("other", LONG, 4).workflow_id)
        return ids

    with SetWorkflowID("p"):
        assert parent() == ["p-2", "p-2", "p-2", "p-6"]
    assert step_names(database_url, "p") == {1: BOUNCE, 2: "echo", 3: BOUNCE, 4: BOUNCE, 5: BOUNCE, 6: "echo"}
    bounced = NOBODY | {"bounced_workflow_id": "p-2"}
    assert outputs("p") == [NOBODY, None, bounced, bounced, NOBODY, None]
    assert [row["child_workflow_id"] for row in step_rows(database_url, "p")] == [None, "p-2", None, None, None, "p-6"]
    assert {row["serialization"] for row in step_rows(database_url, "p")} == {"py_pickle", None}
    assert status_row(database_url, "p-2")["parent_workflow_id"] == "p"
    assert delayed_inputs("p-2") == (3,)
    # The key comes free: a call that was made again would begin anew.
    DBOS.cancel_workflow("p-2")
    steps = step_rows(database_url, "p")
    assert replay(config, "p") == ["p-2", "p-2", "p-2", "p-6"]
    assert step_rows(database_url, "p") == steps
    assert len(rows(database_url, "SELECT 1 FROM workflow_status")) == 3


@pytest.mark.parametrize("steps_until", range(5))
def test_a_crash_behind_any_record_leads_to_the_same_handles(
    app: type[DBOS], config: Config, database_url: str, debouncer: Debouncer[[Any], Any], steps_until: int
) -> None:
    """03 R158: what is not recorded is done again, what is recorded is not."""

    @DBOS.workflow()
    def parent() -> list[str]:
        ids = [debouncer.debounce("key", LONG, number).workflow_id for number in (1, 2)]
        return [*ids, DBOS.run_step({"name": "end"}, lambda: "end")]

    with SetWorkflowID("p"):
        expected = parent()
    assert expected == ["p-2", "p-2", "end"]
    assert replay(config, "p", steps_until=steps_until) == expected
    names = list(step_names(database_url, "p").values())
    # Where the first call had found nobody and that is forgotten, its workflow is there now and bounced.
    assert names == ([BOUNCE, "echo", BOUNCE, "end"] if steps_until else [BOUNCE, BOUNCE, "end"])
    assert delayed_inputs("p-2") == (2,)


def test_a_refusal_is_replayed_though_the_key_is_free_by_then(
    app: type[DBOS], config: Config, database_url: str, debouncer: Debouncer[[Any], Any]
) -> None:
    """03 R152, R158."""

    @DBOS.workflow(name="other")
    def other(value: Any) -> Any:
        return value

    @DBOS.workflow()
    def parent() -> str:
        try:
            debouncer.debounce("key", LONG, 1)
        except DBOSQueueDeduplicatedError as error:
            return f"{error.workflow_id} {error.queue_name} {error.deduplication_id}"
        return "not refused"

    holder_id = enqueue_by_hand(other, "echo-key")
    with SetWorkflowID("p"):
        expected = parent()
    assert expected == f"{holder_id} {INTERNAL_QUEUE_NAME} echo-key"
    (found,) = outputs("p")
    assert found == {
        "bounced_workflow_id": None,
        "holder_workflow_id": holder_id,
        "holder_is_debounced": False,
        "holder_workflow_name": "other",
        "holder_application_name": "test-app",
    }
    DBOS.cancel_workflow(holder_id)
    assert replay(config, "p") == expected
    assert len(rows(database_url, "SELECT 1 FROM workflow_status")) == 2


def test_a_missing_queue_is_replayed_though_it_exists_by_then(
    app: type[DBOS], config: Config, database_url: str, debouncer: Debouncer[[Any], Any]
) -> None:
    """03 R155: recorded, so that the workflow takes the same way again."""

    @DBOS.workflow()
    def parent() -> str:
        try:
            return Debouncer[[Any], Any]("echo", queue="later").debounce("key", LONG, 1).workflow_id
        except Exception as error:
            text = str(error)
            return DBOS.run_step({"name": "fallback"}, lambda: text)

    with SetWorkflowID("p"):
        expected = parent()
    assert "'later'" in expected
    assert step_names(database_url, "p") == {1: BOUNCE, 2: "fallback"}
    DBOS.register_queue("later")
    assert replay(config, "p") == expected
    assert len(rows(database_url, "SELECT 1 FROM workflow_status")) == 1


def test_an_ambient_id_names_the_child_and_is_consumed_by_a_replay_too(
    app: type[DBOS], config: Config, database_url: str, debouncer: Debouncer[[Any], Any]
) -> None:
    """03 R154."""

    @DBOS.workflow()
    def parent() -> list[str]:
        ids = []
        for name in ("mine", "unused"):
            with SetWorkflowID(name):
                ids.append(debouncer.debounce("key", LONG, name).workflow_id)
                ids.append(debouncer.debounce(f"second {name}", LONG, name).workflow_id)
        return ids

    with SetWorkflowID("p"):
        expected = parent()
    assert expected == ["mine", "p-4", "mine", "p-7"]
    assert replay(config, "p") == expected


# --- gathered calls


@pytest.mark.parametrize("last_is_held", [False, True])
def test_gathered_calls_have_their_ids_in_the_order_of_the_arguments(
    app: type[DBOS], config: Config, database_url: str, debouncer: Debouncer[[Any], Any], last_is_held: bool
) -> None:
    """03 section 15, 15 (R161): taken when the call begins, so that replays find them again."""
    keys = [f"key {number}" for number in range(6)]
    held = {key: debouncer.debounce(key, LONG, "before").workflow_id for key in keys[last_is_held::2]}

    @DBOS.workflow()
    async def parent() -> list[str]:
        handles = await asyncio.gather(*[debouncer.debounce_async(key, LONG, key) for key in keys])
        await DBOS.run_step_async({"name": "end"}, lambda: "end")
        return [handle.workflow_id for handle in handles]

    async def run() -> list[str]:
        with SetWorkflowID("p"):
            return await parent()

    expected = asyncio.run(run())
    assert expected == [held.get(key, f"p-{2 * number + 2}") for number, key in enumerate(keys)]
    names = step_names(database_url, "p")
    assert [step_id for step_id, name in names.items() if name == BOUNCE] == [1, 3, 5, 7, 9, 11]
    # The id behind the last call was given back if that call did not need it.
    assert max(names) == (12 if last_is_held else 13)
    assert [delayed_inputs(workflow_id) for workflow_id in expected] == [(key,) for key in keys]
    steps = step_rows(database_url, "p")
    for workflow_id in expected:
        DBOS.cancel_workflow(workflow_id)
    assert replay(config, "p") == expected
    assert step_rows(database_url, "p") == steps


@pytest.mark.parametrize("steps_until", range(13))
def test_gathered_calls_that_were_cut_off_are_completed(
    app: type[DBOS], config: Config, database_url: str, debouncer: Debouncer[[Any], Any], steps_until: int
) -> None:
    """03 section 15, 15: recorded and unrecorded calls side by side."""
    keys = [f"key {number}" for number in range(6)]
    for key in keys[::2]:
        debouncer.debounce(key, LONG, "before")

    @DBOS.workflow()
    async def parent() -> list[str]:
        handles = await asyncio.gather(*[debouncer.debounce_async(key, LONG, key) for key in keys])
        return [handle.workflow_id for handle in handles]

    async def run() -> list[str]:
        with SetWorkflowID("p"):
            return await parent()

    expected = asyncio.run(run())
    assert replay(config, "p", steps_until=steps_until) == expected
    assert len(rows(database_url, "SELECT 1 FROM workflow_status WHERE name = 'echo'")) == 6


def test_a_debounce_beside_steps_keeps_their_ids(
    app: type[DBOS], config: Config, database_url: str, debouncer: Debouncer[[Any], Any]
) -> None:
    """An id is only given back when nothing was drawn behind it."""
    held = debouncer.debounce("key", LONG, 0).workflow_id

    @DBOS.step()
    async def step(number: int) -> int:
        return number

    @DBOS.workflow()
    async def parent() -> list[Any]:
        found = await asyncio.gather(step(1), debouncer.debounce_async("key", LONG, 1), step(2))
        found += await asyncio.gather(step(3), debouncer.debounce_async("key", LONG, 2))
        return [*found[:1], found[1].workflow_id, found[2], found[3], found[4].workflow_id, await step(4)]

    async def run() -> list[Any]:
        with SetWorkflowID("p"):
            return await parent()

    expected = asyncio.run(run())
    assert expected == [1, held, 2, 3, held, 4]
    steps = step_names(database_url, "p")
    assert [steps.get(i) == BOUNCE for i in range(1, 8)] == [False, True, False, False, False, True, False]
    assert sorted(steps) == [1, 2, 4, 5, 6, 7]
    before = step_rows(database_url, "p")
    assert replay(config, "p") == expected
    assert step_rows(database_url, "p") == before


# --- what happens in between


class Between:
    """Does something once, right after a look at the holder of a key has been answered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any]) -> None:
        instance = state.instance
        assert instance is not None
        assert instance.engine is not None
        store: Any = instance.engine.store
        look = store.find_key_holder

        def find(*args: Any) -> Any:
            answer = look(*args)
            monkeypatch.setattr(store, "find_key_holder", look)
            self.result = action()
            return answer

        monkeypatch.setattr(store, "find_key_holder", find)


def elsewhere(function: Callable[[], Any]) -> Any:
    """In a thread of its own, outside of the workflow that asks."""
    result: list[Any] = []
    thread = threading.Thread(target=lambda: result.append(function()))
    thread.start()
    thread.join()
    return result[0]


def run_parent(debouncer: Debouncer[[Any], Any], in_workflow: bool) -> str:
    @DBOS.workflow(name="parent")
    def parent() -> str:
        return debouncer.debounce("key", LONG, "mine").workflow_id

    if in_workflow:
        with SetWorkflowID("p"):
            return parent()
    return debouncer.debounce("key", LONG, "mine").workflow_id


in_and_outside = pytest.mark.parametrize("in_workflow", [True, False], ids=["in a workflow", "outside"])


@in_and_outside
def test_a_workflow_that_leaves_after_the_look_is_not_bounced(
    app: type[DBOS],
    database_url: str,
    debouncer: Debouncer[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
    in_workflow: bool,
) -> None:
    """03 R149, R152: it runs with its own arguments, and ours get a workflow of their own."""
    first = debouncer.debounce("key", LONG, "first")

    def promote() -> None:
        DBOS.set_workflow_delay(first.workflow_id, delay_until_epoch_ms=0)
        assert first.get_result() == "first"

    Between(monkeypatch, lambda: elsewhere(promote))
    workflow_id = run_parent(debouncer, in_workflow)
    assert workflow_id != first.workflow_id
    assert delayed_inputs(workflow_id) == ("mine",)
    if in_workflow:
        assert outputs("p") == [NOBODY, None]


@in_and_outside
def test_a_key_that_is_taken_after_the_look_is_bounced(
    app: type[DBOS],
    config: Config,
    database_url: str,
    debouncer: Debouncer[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
    in_workflow: bool,
) -> None:
    """03 R152: two first calls at once make one workflow, with the arguments of the later one."""
    between = Between(monkeypatch, lambda: elsewhere(lambda: debouncer.debounce("key", LONG, "theirs")))
    workflow_id = run_parent(debouncer, in_workflow)
    assert workflow_id == between.result.workflow_id
    assert delayed_inputs(workflow_id) == ("mine",)
    assert len(rows(database_url, "SELECT 1 FROM workflow_status WHERE name = 'echo'")) == 1
    if in_workflow:
        assert [row["child_workflow_id"] for row in step_rows(database_url, "p")] == [None, workflow_id]
        assert step_names(database_url, "p") == {1: BOUNCE, 2: "echo"}
        DBOS.cancel_workflow(workflow_id)
        assert replay(config, "p") == workflow_id


def test_a_key_that_is_taken_by_hand_after_the_look_is_refused_in_every_replay(
    app: type[DBOS],
    config: Config,
    database_url: str,
    debouncer: Debouncer[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """03 R152, R158: the call starts over, with ids of its own."""

    @DBOS.workflow(name="other")
    def other(value: Any) -> Any:
        return value

    @DBOS.workflow(name="parent")
    def parent() -> str:
        try:
            return debouncer.debounce("key", LONG, "mine").workflow_id
        except DBOSQueueDeduplicatedError as error:
            holder_id = error.workflow_id
            return DBOS.run_step({"name": "refused"}, lambda: holder_id)

    between = Between(monkeypatch, lambda: elsewhere(lambda: enqueue_by_hand(other, "echo-key")))
    with SetWorkflowID("p"):
        assert parent() == between.result
    assert step_names(database_url, "p") == {1: BOUNCE, 2: "echo", 3: BOUNCE, 4: "refused"}
    assert step_rows(database_url, "p")[1]["error"] is not None
    DBOS.cancel_workflow(between.result)
    assert replay(config, "p") == between.result
    assert rows(database_url, "SELECT 1 FROM workflow_status WHERE name = 'echo'") == []


class LostAnswers:
    """The first bounces commit, but their answers are lost; then something else happens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any]) -> None:
        instance = state.instance
        assert instance is not None
        assert instance.engine is not None
        store: Any = instance.engine.store
        original = store.bounce
        self.tries = 0

        def bounce(*args: Any) -> Any:
            self.tries += 1
            answer = original(*args)
            if self.tries == 1:
                action()
                raise StoreUnavailable("the answer is lost")
            return answer

        monkeypatch.setattr(store, "bounce", bounce)


def test_a_bounce_whose_answer_is_lost_finds_its_own_step(
    app: type[DBOS],
    config: Config,
    database_url: str,
    debouncer: Debouncer[[Any], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """02 R84: done once, so that it does not overwrite what came after it."""
    first = debouncer.debounce("key", LONG, "first")
    lost = LostAnswers(
        monkeypatch,
        lambda: rows(
            database_url, "UPDATE workflow_input SET inputs = 'newer' WHERE workflow_uuid = %s", first.workflow_id
        ),
    )
    assert run_parent(debouncer, True) == first.workflow_id
    assert lost.tries == 2
    assert step_names(database_url, "p") == {1: BOUNCE}
    (row,) = rows(database_url, "SELECT inputs FROM workflow_input WHERE workflow_uuid = %s", first.workflow_id)
    assert row["inputs"] == "newer"


def test_a_bounce_whose_answer_is_lost_counts_though_its_workflow_has_left(
    app: type[DBOS], database_url: str, debouncer: Debouncer[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that follows used the arguments, so no second one is scheduled."""
    first = debouncer.debounce("key", LONG, "first")

    def promote() -> None:
        DBOS.set_workflow_delay(first.workflow_id, delay_until_epoch_ms=0)
        assert first.get_result() == "mine"

    LostAnswers(monkeypatch, lambda: elsewhere(promote))
    assert run_parent(debouncer, True) == first.workflow_id
    assert len(rows(database_url, "SELECT 1 FROM workflow_status WHERE name = 'echo'")) == 1


def test_outside_of_workflows_a_lost_answer_is_harmless(
    app: type[DBOS], database_url: str, debouncer: Debouncer[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = debouncer.debounce("key", LONG, "first")
    lost = LostAnswers(monkeypatch, lambda: None)
    assert run_parent(debouncer, False) == first.workflow_id
    assert lost.tries == 2
    assert delayed_inputs(first.workflow_id) == ("mine",)


@pytest.mark.parametrize("is_held", [True, False])
def test_an_execution_that_lost_its_workflow_changes_nothing(
    app: type[DBOS], database_url: str, debouncer: Debouncer[[Any], Any], is_held: bool
) -> None:
    """03 R46, 02 section 13."""
    if is_held:
        debouncer.debounce("key", LONG, "first")
    stopped = Gate()
    seen: list[Any] = []

    @DBOS.workflow()
    def parent() -> None:
        rows(database_url, "UPDATE workflow_status SET owner_xid = 'another' WHERE workflow_uuid = 'p'")
        seen.append(everything(database_url))
        try:
            debouncer.debounce("key", LONG, "mine")
        except BaseException as error:
            seen.append(type(error).__name__)
            stopped.open()
            raise

    with SetWorkflowID("p"):
        DBOS.start_workflow(parent)
    stopped.wait()
    assert seen[1] == "DBOSWorkflowConflictIDError"
    assert everything(database_url) == seen[0]


def test_a_cancelled_workflow_does_not_debounce(
    app: type[DBOS], database_url: str, debouncer: Debouncer[[Any], Any]
) -> None:
    first = debouncer.debounce("key", LONG, "first")
    seen: list[str] = []

    @DBOS.workflow()
    def parent() -> None:
        elsewhere(lambda: DBOS.cancel_workflow("p"))
        try:
            debouncer.debounce("key", LONG, "mine")
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    with SetWorkflowID("p"), pytest.raises(Exception, match="cancelled"):
        parent()
    assert seen == ["DBOSWorkflowCancelledError"]
    assert delayed_inputs(first.workflow_id) == ("first",)


def test_many_debounces_are_found_again_behind_the_first_window(
    app: type[DBOS], config: Config, database_url: str, debouncer: Debouncer[[Any], Any]
) -> None:
    """Replays load recorded steps a thousand at a time; ids on both sides of the border."""

    @DBOS.workflow()
    def parent() -> list[str]:
        for number in range(997):
            DBOS.run_step({"name": "filler"}, lambda number=number: number)
        return [debouncer.debounce(key, LONG, 1).workflow_id for key in ("a", "a", "b", "b", "c")]

    with SetWorkflowID("p"):
        expected = parent()
    assert expected == ["p-999", "p-999", "p-1002", "p-1002", "p-1005"]
    make_pending(database_url, "p")
    relaunch(config)
    assert DBOS.retrieve_workflow("p").get_result() == expected
    assert max(step_names(database_url, "p")) == 1005
