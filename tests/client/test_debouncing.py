"""Debouncing through a client (04 R535; 03 section 11)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from dbos import DBOS, DBOSClient, Debouncer, DebouncerClient
from dbos.error import DBOSException, DBOSQueueDeduplicatedError
from tests.helpers import rows, status_row

OPTIONS: Any = {"workflow_name": "w", "queue_name": "mail"}


def declare() -> None:
    @DBOS.workflow(name="w")
    def w(*args: Any) -> Any:
        return args

    DBOS.register_queue("mail")


def test_many_calls_are_one_run_with_the_last_arguments(client: DBOSClient, database_url: str) -> None:
    """03 R147, R148, R150."""
    declare()
    debouncer: DebouncerClient[Any] = DebouncerClient(client, OPTIONS)
    handles = [debouncer.debounce("k", 600, n) for n in range(3)]
    (row,) = rows(database_url, "SELECT * FROM workflow_status")
    assert (row["status"], row["queue_name"], row["deduplication_id"]) == ("DELAYED", "mail", "w-k")
    assert (bool(row["is_debounced"]), row["application_version"], row["application_name"]) == (True, None, "test-app")
    handles.append(debouncer.debounce("k", 0, "last"))
    assert {handle.get_result() for handle in handles} == {("last",)}
    assert {handle.workflow_id for handle in handles} == {row["workflow_uuid"]}


async def test_the_same_from_async_code(client: DBOSClient) -> None:
    """04 R535."""
    await asyncio.to_thread(declare)
    debouncer: DebouncerClient[Any] = DebouncerClient(client, OPTIONS)
    first = await debouncer.debounce_async("k", 600, 1)
    second = await debouncer.debounce_async("k", 0, 2)
    assert first.workflow_id == second.workflow_id
    assert await first.get_result() == (2,)


def test_the_run_starts_by_the_end_of_the_timeout(client: DBOSClient, database_url: str) -> None:
    """03 R147, R148."""
    debouncer: DebouncerClient[Any] = DebouncerClient(client, OPTIONS, debounce_timeout_sec=5)
    before_ms = int(time.time() * 1000)
    workflow_id = debouncer.debounce("k", 600).workflow_id
    row = status_row(database_url, workflow_id)
    assert before_ms + 5000 <= row["delay_until_epoch_ms"] == row["debounce_deadline_epoch_ms"]
    debouncer.debounce("k", 600)
    assert status_row(database_url, workflow_id)["delay_until_epoch_ms"] == row["debounce_deadline_epoch_ms"]


def test_a_client_and_an_application_share_the_keys(client: DBOSClient) -> None:
    """03 section 11.1: state lives only in the database."""
    declare()
    first = DebouncerClient[Any](client, OPTIONS).debounce("k", 600, 1)
    second: Any = Debouncer("w", queue="mail").debounce("k", 0, 2)  # type: ignore[var-annotated]
    assert first.workflow_id == second.workflow_id
    assert first.get_result() == (2,)


def test_the_other_options_go_to_the_first_call(client: DBOSClient, database_url: str) -> None:
    """03 R147, R156: a normal client enqueue with the given options; whose it is, the debouncer says first."""
    options: Any = {
        **OPTIONS,
        "workflow_id": "mine",
        "app_version": "v7",
        "workflow_timeout": 2,
        "authenticated_user": "alice",
        "attributes": {"a": 1},
        "application_name": "options-app",
    }
    DebouncerClient[Any](client, options, queue="parts").debounce("k", 600)
    row = status_row(database_url, "mine")
    assert (row["queue_name"], row["application_version"], row["workflow_timeout_ms"]) == ("parts", "v7", 2000)
    assert (row["authenticated_user"], row["application_name"]) == ("alice", "options-app")
    other = DebouncerClient[Any](client, {**options, "workflow_id": "x"}, application_name="argument-app")
    other.debounce("j", 600)
    assert status_row(database_url, "x")["application_name"] == "argument-app"


CONTRADICTIONS: list[Any] = [
    {"deduplication_id": "d"},
    {"delay_seconds": 1},
    {"priority": 1},
    {"queue_partition_key": "p"},
    {"duplication_policy": "return-existing"},
    {"workflow_id_reuse_policy": "reject"},
]


def test_options_that_contradict_debouncing_are_refused(client: DBOSClient) -> None:
    """04 R535, 03 R153."""
    for option in CONTRADICTIONS:
        with pytest.raises(DBOSException, match=next(iter(option))):
            DebouncerClient(client, {**OPTIONS, **option})


def test_the_harmless_policies_are_accepted(client: DBOSClient) -> None:
    """04 R535."""
    options: Any = {**OPTIONS, "workflow_id_reuse_policy": "return-existing"}
    assert DebouncerClient[Any](client, options).debounce("k", 600).get_status().status == "DELAYED"


def test_a_key_that_is_held_by_hand_is_refused(client: DBOSClient) -> None:
    """03 R152."""
    holder = client.enqueue({**OPTIONS, "queue_name": "nowhere", "deduplication_id": "w-k"})
    with pytest.raises(DBOSQueueDeduplicatedError) as raised:
        DebouncerClient[Any](client, OPTIONS, queue="nowhere").debounce("k", 1)
    assert raised.value.workflow_id == holder.workflow_id


def test_a_client_without_application_bounces_anybodys(client: DBOSClient, database_url: str) -> None:
    """03 R148: and claims nothing."""
    first = DebouncerClient[Any](client, OPTIONS).debounce("k", 600, 1)
    with DBOSClient(system_database_url=database_url) as nameless:
        second = DebouncerClient[Any](nameless, OPTIONS).debounce("k", 700, 2)
    assert first.workflow_id == second.workflow_id
    assert status_row(database_url, first.workflow_id)["application_name"] == "test-app"
    other = DebouncerClient[Any](client, OPTIONS, application_name="other-app")
    with pytest.raises(DBOSQueueDeduplicatedError):
        other.debounce("k", 600)


def test_a_key_or_period_without_meaning_is_refused(client: DBOSClient) -> None:
    meaningless: list[tuple[Any, Any]] = [(5, 1), ("k", "soon"), ("k", float("nan")), ("a\0b", 1)]
    for key, period in meaningless:
        with pytest.raises(DBOSException):
            DebouncerClient[Any](client, OPTIONS).debounce(key, period)
    assert client.list_workflows() == []


def test_arguments_of_the_debouncer_are_checked(client: DBOSClient) -> None:
    for wrong in ({"queue": ""}, {"application_name": ""}, {"debounce_timeout_sec": -1}, {"queue": 5}):
        arguments: Any = wrong
        with pytest.raises(DBOSException):
            DebouncerClient(client, OPTIONS, **arguments)
    with pytest.raises(KeyError):
        DebouncerClient(client, {"workflow_name": "w"})  # type: ignore[typeddict-item]
