"""Warnings about work that waits for ever, and about other applications' queues (03 section 15, 10, 16 and 20)."""

from __future__ import annotations

from typing import Any

import pytest

from dbos import DBOS, SetEnqueueOptions, SetWorkflowID
from tests.helpers import declare_echo, replay, rows, wait_until

Config = dict[str, Any]


@pytest.fixture
def log(app: type[DBOS], dbos_log: None, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What a launched application logs."""
    return caplog


def wait_for_warning(log: pytest.LogCaptureFixture, part: str) -> str:
    """The one warning with this part."""
    wait_until(lambda: any(part in message for message in log.messages))
    (found,) = [message for message in log.messages if part in message]
    return found


def flush(log: pytest.LogCaptureFixture, echo: Any) -> None:
    """Wait until everything enqueued so far has been judged: so has what was enqueued after it."""
    DBOS.enqueue_workflow("flushing", echo)
    wait_for_warning(log, "'flushing', which is not registered")


def test_an_unknown_queue_is_told_once_with_the_known_ones(app: type[DBOS], log: pytest.LogCaptureFixture) -> None:
    echo = declare_echo()
    DBOS.register_queue("mail")
    for _ in range(3):
        DBOS.enqueue_workflow("mial", echo)
        DBOS.enqueue_workflow_with_options({"workflow_name": "echo", "queue_name": "mial"})
    text = wait_for_warning(log, "'mial'")
    assert "register_queue('mial')" in text
    assert "Registered are: mail" in text
    flush(log, echo)
    assert sum("'mial'" in message for message in log.messages) == 1


def test_a_queue_that_was_just_registered_is_not_unknown(app: type[DBOS], log: pytest.LogCaptureFixture) -> None:
    """Neither by this process nor by another one: what looks wrong is looked at again."""
    echo = declare_echo()
    for number in range(20):
        DBOS.register_queue(f"mail-{number}", partition_concurrency=1)
        with SetEnqueueOptions(queue_partition_key="key"):
            DBOS.enqueue_workflow(f"mail-{number}", echo)
    flush(log, echo)
    assert not any("queue 'mail-" in message for message in log.messages)


def test_a_queue_that_the_application_of_the_work_does_not_serve(
    app: type[DBOS], database_url: str, log: pytest.LogCaptureFixture
) -> None:
    """03 R27."""
    echo = declare_echo()
    DBOS.register_queue("mail")
    rows(database_url, "UPDATE queues SET application_name = 'other-app'")
    named: Any = {"workflow_name": "echo", "queue_name": "mail"}
    DBOS.enqueue_workflow_with_options(named | {"application_name": "other-app"})  # as it should be
    flush(log, echo)
    assert not any("queue 'mail'" in message for message in log.messages)
    DBOS.enqueue_workflow("mail", echo)
    text = wait_for_warning(log, "queue 'mail', which belongs to application 'other-app'")
    assert "application_name='other-app'" in text


def test_a_partition_key_missing_or_without_effect(app: type[DBOS], log: pytest.LogCaptureFixture) -> None:
    """03 R61."""
    echo = declare_echo()
    DBOS.register_queue("parts", partition_concurrency=1)
    DBOS.register_queue("plain")
    for key in (None, None, "", "key"):
        for queue_name in ("parts", "plain"):
            with SetEnqueueOptions(queue_partition_key=key):
                DBOS.enqueue_workflow(queue_name, echo)
    assert "queue_partition_key" in wait_for_warning(log, "without a partition key was put on queue 'parts'")
    assert "no effect" in wait_for_warning(log, "with a partition key was put on queue 'plain'")
    flush(log, echo)
    assert sum("'parts'" in message or "'plain'" in message for message in log.messages) == 2


def test_a_replay_and_the_librarys_own_queues_give_no_warning(
    app: type[DBOS], config: Config, log: pytest.LogCaptureFixture
) -> None:
    """03 R2: the library's own queues may be named."""
    echo = declare_echo()

    @DBOS.workflow()
    def parent() -> str:
        return DBOS.enqueue_workflow("nowhere", echo).workflow_id

    with SetWorkflowID("p"):
        parent()
    wait_for_warning(log, "'nowhere'")
    with SetEnqueueOptions(queue_partition_key="key"):
        assert DBOS.enqueue_workflow("_dbos_internal_queue", echo, 3).get_result() == 3
    log.clear()
    assert replay(config, "p") == "p-1"
    flush(log, echo)
    assert not any("'nowhere'" in message or "_dbos_" in message for message in log.messages)


def test_resuming_onto_an_unknown_queue(app: type[DBOS], log: pytest.LogCaptureFixture) -> None:
    """03 R103, 05 section 14, 21."""
    echo = declare_echo()
    handle = DBOS.enqueue_workflow("first", echo)
    DBOS.resume_workflow(handle.workflow_id, queue_name="nowhere")
    wait_for_warning(log, "'nowhere', which is not registered")
    assert handle.get_status().queue_name == "nowhere"


@pytest.mark.parametrize(
    "options", [{"priority": 1}, {"deduplication_id": "d"}, {"delay_seconds": 60, "app_version": "v7"}]
)
def test_enqueue_options_around_a_direct_call_are_told_once(
    app: type[DBOS], database_url: str, log: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    """03 R36; section 15, 16: the call runs all the same, without them."""
    echo = declare_echo()
    with SetEnqueueOptions(**options):
        assert [echo(1), echo(2)] == [1, 2]
    (text,) = [message for message in log.messages if "within SetEnqueueOptions" in message]
    assert "'echo'" in text
    assert all(name in text for name in options)
    for row in rows(database_url, "SELECT * FROM workflow_status"):
        assert (row["priority"], row["deduplication_id"], row["application_version"]) == (0, None, "v1")


async def test_enqueue_options_around_an_async_call(app: type[DBOS], log: pytest.LogCaptureFixture) -> None:
    @DBOS.workflow(name="async_echo")
    async def async_echo(value: int) -> int:
        return value

    with SetEnqueueOptions(priority=3):
        assert await async_echo(1) == 1
    assert sum("'async_echo' was called within SetEnqueueOptions" in message for message in log.messages) == 1
    assert await async_echo(1) == 1


def test_changing_or_deleting_a_queue_of_another_application_names_the_owner(
    app: type[DBOS], database_url: str, log: pytest.LogCaptureFixture
) -> None:
    """03 R16, R22; section 15, 20: it is done, and it does not happen unnoticed."""
    own, foreign = DBOS.register_queue("own"), DBOS.register_queue("foreign")
    unclaimed = DBOS.register_queue("unclaimed")
    rows(database_url, "UPDATE queues SET application_name = 'other-app' WHERE name = 'foreign'")
    rows(database_url, "UPDATE queues SET application_name = NULL WHERE name = 'unclaimed'")
    for queue in (own, unclaimed, foreign):
        queue.set_worker_concurrency(3)
        DBOS.delete_queue(queue.name)
    warned = [message for message in log.messages if "belongs to application" in message]
    assert warned == [
        "Queue 'foreign', which application 'test-app' has changed (worker_concurrency), belongs to application "
        "'other-app'",
        "Queue 'foreign', which application 'test-app' has deleted, belongs to application 'other-app'",
    ]
    assert DBOS.list_queues(application_name="") == []


@pytest.mark.parametrize("what", ["nothing", "waiting", "delayed", "ended"])
def test_deleting_a_queue_on_which_something_waits_is_told(
    app: type[DBOS], log: pytest.LogCaptureFixture, what: str
) -> None:
    """03 R16, section 14: it stays there, and nobody would notice."""
    echo = declare_echo()
    queue = DBOS.register_queue("mail", global_concurrency=0)
    other = DBOS.register_queue("other", global_concurrency=0)
    other.enqueue(echo)
    if what == "delayed":
        with SetEnqueueOptions(delay_seconds=3600):
            queue.enqueue(echo)
    elif what != "nothing":
        handle = queue.enqueue(echo)
        if what == "ended":
            queue.set_global_concurrency(1)
            handle.get_result()
    DBOS.delete_queue("mail")
    DBOS.delete_queue("mail")
    told = [message for message in log.messages if "was deleted, and workflows wait on it" in message]
    assert len(told) == (2 if what in ("waiting", "delayed") else 0)
