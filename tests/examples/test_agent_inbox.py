"""The agent inbox (examples/agent-inbox) as its page sees it: the requests, and the server-sent events."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from dbos import DBOS
from tests.helpers import PATIENCE_SECONDS, rows

Json = dict[str, Any]


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example is imported anew, since the registry of workflows is emptied after each test."""
    monkeypatch.setenv("INBOX_DATA", str(tmp_path))
    monkeypatch.setenv("INBOX_TOKEN_SECONDS", "0")
    for name in [name for name in sys.modules if name.partition(".")[0] == "agent_inbox"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
async def client(modules: None, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Talks to a launched inbox in this process."""
    app = module("web").create_app(database_url)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://inbox") as http,
    ):
        yield http


@pytest.fixture
def outbox(tmp_path: Path) -> Callable[[], list[str]]:
    """What was sent so far."""
    return lambda: [path.read_text(encoding="utf-8") for path in sorted((tmp_path / "outbox").glob("*.txt"))]


def module(name: str) -> Any:
    return importlib.import_module(f"agent_inbox.{name}")


async def start(client: httpx.AsyncClient, agent_id: str, approval_seconds: float = 3600) -> None:
    request = {"id": agent_id, "letter": "late-beans", "approval_seconds": approval_seconds}
    assert (await client.post("/api/agents", json=request)).status_code == 202


async def decide(client: httpx.AsyncClient, agent_id: str, approved: bool, note: str = "") -> int:
    answer = await client.post(f"/api/agents/{agent_id}/decision", json={"approved": approved, "note": note})
    return answer.status_code


async def wait_for_phase(client: httpx.AsyncClient, agent_id: str, phase: str) -> Json:
    """The agent, as listed, once it has come so far."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        listed: list[Json] = (await client.get("/api/agents")).json()
        for agent in listed:
            if agent["id"] == agent_id and agent["phase"] == phase:
                return agent
        assert time.monotonic() < give_up_at, f"{agent_id} is not {phase}: {listed}"
        await asyncio.sleep(0.005)


async def read_progress(
    client: httpx.AsyncClient, agent_id: str, headers: dict[str, str] | None = None
) -> tuple[list[tuple[int, Json]], bool]:
    """The entries of an agent that has ended, with their ids, and whether the browser is told that it has ended."""
    answer = await client.get(f"/api/agents/{agent_id}/progress", headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    entries: list[tuple[int, Json]] = []
    has_ended = False
    for event in answer.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.splitlines() if ": " in line)
        has_ended = has_ended or fields.get("event") == "end"
        if "id" in fields:
            entries.append((int(fields["id"]), json.loads(fields["data"])))
    return entries, has_ended


async def test_an_approved_letter_is_sent(client: httpx.AsyncClient, outbox: Callable[[], list[str]]) -> None:
    await start(client, "one")
    agent = await wait_for_phase(client, "one", "waiting")
    assert agent["letter"]["sender"] == "Tom Okafor"
    assert 0 < agent["expires_at_ms"] - time.time() * 1000 <= 3600 * 1000
    assert outbox() == []

    assert await decide(client, "one", True, "well written") == 202
    agent = await wait_for_phase(client, "one", "sent")
    assert agent["note"] == "well written"
    (sent,) = outbox()
    assert sent.startswith("To: Tom Okafor\nSubject: Re: Where are my beans?\n\nDear Tom,")
    assert "at the sorting centre in Leeds since Monday" in sent


async def test_a_rejected_letter_is_not_sent(client: httpx.AsyncClient, outbox: Callable[[], list[str]]) -> None:
    await start(client, "one")
    await wait_for_phase(client, "one", "waiting")
    assert await decide(client, "one", False, "too friendly") == 202
    agent = await wait_for_phase(client, "one", "rejected")
    assert (agent["note"], outbox()) == ("too friendly", [])


async def test_a_letter_that_nobody_approves_in_time_is_not_sent(
    client: httpx.AsyncClient, outbox: Callable[[], list[str]]
) -> None:
    await start(client, "one", approval_seconds=0)
    await wait_for_phase(client, "one", "expired")
    assert outbox() == []
    assert await decide(client, "one", True) == 409


async def test_decisions_of_a_double_click_count_once(
    client: httpx.AsyncClient,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    outbox: Callable[[], list[str]],
) -> None:
    for agent_id in ("one", "two"):
        await start(client, agent_id)
        await wait_for_phase(client, agent_id, "waiting")
    meet = both_look_before_either_sends(module("inbox").agent)
    with monkeypatch.context() as patch:
        patch.setattr(module("inbox"), "agent", meet)
        statuses = await asyncio.gather(decide(client, "one", True), decide(client, "one", True))
    assert statuses == [202, 202]
    await wait_for_phase(client, "one", "sent")
    messages = rows(database_url, "SELECT destination_uuid FROM notifications")
    assert [message["destination_uuid"] for message in messages] == ["one"]
    assert len(outbox()) == 1

    # The key is one of this agent.
    assert await decide(client, "two", False) == 202
    await wait_for_phase(client, "two", "rejected")


def both_look_before_either_sends(look: Callable[[str], Awaitable[Json]]) -> Callable[[str], Awaitable[Json]]:
    looked = 0
    both = asyncio.Event()

    async def look_and_wait(agent_id: str) -> Json:
        nonlocal looked
        agent = await look(agent_id)
        looked += 1
        if looked == 2:
            both.set()
        await asyncio.wait_for(both.wait(), PATIENCE_SECONDS)
        return agent

    return look_and_wait


async def test_a_start_that_is_repeated_starts_one_agent(client: httpx.AsyncClient) -> None:
    await start(client, "one")
    await start(client, "one")
    await wait_for_phase(client, "one", "waiting")
    assert len((await client.get("/api/agents")).json()) == 1


async def test_a_browser_that_comes_back_continues_behind_the_last_entry(
    client: httpx.AsyncClient, outbox: Callable[[], list[str]]
) -> None:
    await start(client, "one")
    await wait_for_phase(client, "one", "waiting")
    await decide(client, "one", True)
    await wait_for_phase(client, "one", "sent")

    everything, has_ended = await read_progress(client, "one")
    assert has_ended
    assert [at for at, _ in everything] == list(range(len(everything)))
    phases = [entry["phase"] for _, entry in everything if entry["kind"] == "phase"]
    assert phases == ["planning", "looking up", "drafting", "waiting", "sending", "sent"]
    draft = "".join(entry["text"] for _, entry in everything if entry["kind"] == "token")
    assert outbox()[0].endswith(draft + "\n")

    last, _ = everything[-1]
    for seen in (0, last // 2, last):
        rest, has_ended = await read_progress(client, "one", {"Last-Event-ID": str(seen)})
        assert rest == everything[seen + 1 :]
        assert has_ended


async def test_a_reader_of_a_quiet_agent_hears_that_the_server_is_there(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module("inbox"), "QUIET_SECONDS", 0.01)
    await start(client, "one")
    kinds: list[str] = []
    async for happened in module("inbox").progress("one", 0):
        kinds.append("nothing" if happened is None else happened[1]["kind"])
        if kinds[-2:] == ["nothing", "nothing"] and "token" in kinds:
            await decide(client, "one", True)
    # Between its last words and its end an agent may be quiet too.
    assert [kind for kind in kinds if kind != "nothing"][-1] == "phase"
    assert kinds.count("plan") == 1


async def test_a_browser_is_not_told_that_an_agent_has_ended_when_the_server_stops(client: httpx.AsyncClient) -> None:
    await start(client, "one")
    await wait_for_phase(client, "one", "waiting")
    events: list[str] = []
    async for event in module("web").server_sent("one", 0):
        events.append(event)
        if '"waiting"' in event:
            await asyncio.to_thread(DBOS.destroy)
    assert '"waiting"' in events[-1]


async def test_a_request_that_meets_a_stopped_server_may_be_repeated(client: httpx.AsyncClient) -> None:
    await asyncio.to_thread(DBOS.destroy)
    assert (await client.get("/api/agents")).status_code == 503
    assert await decide(client, "one", True) == 503


async def test_what_is_not_there_or_wrong_is_refused(client: httpx.AsyncClient) -> None:
    request = {"id": "one", "letter": "unknown", "approval_seconds": 60}
    assert (await client.post("/api/agents", json=request)).status_code == 404
    request = {"id": "one", "letter": "late-beans", "approval_seconds": -1}
    assert (await client.post("/api/agents", json=request)).status_code == 422
    request = {"id": "../one", "letter": "late-beans", "approval_seconds": 60}
    assert (await client.post("/api/agents", json=request)).status_code == 422
    assert (await client.get("/api/agents/one")).status_code == 404
    assert (await client.get("/api/agents/one/progress")).status_code == 404
    assert await decide(client, "one", True) == 404
    assert (await client.get("/api/agents")).json() == []


async def test_agents_that_fail_or_are_cancelled_are_listed_so(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(client, "cancelled")
    await wait_for_phase(client, "cancelled", "waiting")
    await DBOS.cancel_workflow_async("cancelled")
    await wait_for_phase(client, "cancelled", "cancelled")
    assert await decide(client, "cancelled", True) == 409

    def fail(seconds: float) -> None:
        raise ValueError("nobody to ask")

    monkeypatch.setattr(module("agent"), "ask_a_person", fail)
    await start(client, "failed")
    assert (await wait_for_phase(client, "failed", "failed"))["note"] == "nobody to ask"
    _, has_ended = await read_progress(client, "failed")
    assert has_ended


async def test_the_page_and_its_parts_are_served(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["content-security-policy"] == "default-src 'self'"
    for part in ("page.js", "page.css", "icon.svg"):
        assert f"/page/{part}" in page.text
        assert (await client.get(f"/page/{part}")).status_code == 200
    assert len((await client.get("/api/letters")).json()) == 5
