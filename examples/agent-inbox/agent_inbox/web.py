"""The web application: the page, and what its script asks for. The work is done in `inbox`."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from dbos import DBOS, DBOSConfig
from dbos.error import DBOSException
from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from . import inbox
from .desk import LETTERS, Letter

PAGE = Path(__file__).with_name("page")
RECONNECT_MS = 500
DAY_SECONDS = 24 * 60 * 60


class StartRequest(BaseModel):
    """Start an agent. The page makes up the id, so that it can repeat a request whose answer was lost."""

    id: str = Field(pattern="^[A-Za-z0-9-]{1,100}$")  # it becomes part of a file's name
    letter: str
    approval_seconds: float = Field(ge=0, le=30 * DAY_SECONDS)


class DecisionRequest(BaseModel):
    """Approve or reject what an agent is about to send."""

    approved: bool
    note: str = Field(default="", max_length=2000)


def create_app(database_url: str) -> FastAPI:
    """The application, with its workflows in a database."""
    config: DBOSConfig = {
        "name": "agent-inbox",
        "system_database_url": database_url,
        "application_version": "1",
        "executor_id": "inbox",
        "log_level": "WARNING",
    }

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        DBOS(config=config)
        DBOS.launch()  # on this event loop; agents that an earlier process left go on from here
        yield
        await asyncio.to_thread(DBOS.destroy)

    app = FastAPI(title="Agent inbox", lifespan=lifespan)

    @app.get("/api/letters")
    async def letters() -> list[Letter]:
        return list(LETTERS.values())

    @app.get("/api/agents")
    async def agents(limit: int = 100) -> list[inbox.Agent]:
        return await inbox.agents(min(max(limit, 0), 1000))

    @app.get("/api/agents/{agent_id}")
    async def agent(agent_id: str) -> inbox.Agent:
        return await inbox.agent(agent_id)

    @app.post("/api/agents", status_code=202)
    async def start(request: StartRequest) -> dict[str, str]:
        letter = LETTERS.get(request.letter)
        if letter is None:
            raise HTTPException(404, f"There is no letter {request.letter!r}.")
        await inbox.start(request.id, letter, request.approval_seconds)
        return {"id": request.id}

    @app.post("/api/agents/{agent_id}/decision", status_code=202)
    async def decide(agent_id: str, request: DecisionRequest) -> dict[str, str]:
        await inbox.decide(agent_id, {"approved": request.approved, "note": request.note})
        return {"id": agent_id}

    @app.get("/api/agents/{agent_id}/progress")
    async def progress(
        agent_id: str, after: int = -1, last_event_id: Annotated[int | None, Header()] = None
    ) -> StreamingResponse:
        """Server-sent events. The id of each is its offset, so a browser that comes back continues behind it."""
        await inbox.agent(agent_id)
        offset = (after if last_event_id is None else last_event_id) + 1
        return StreamingResponse(
            server_sent(agent_id, offset), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    @app.exception_handler(inbox.NoSuchAgent)
    async def not_found(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 404)

    @app.exception_handler(inbox.NotWaiting)
    async def conflict(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 409)

    @app.exception_handler(DBOSException)
    async def unavailable(request: Request, error: Exception) -> JSONResponse:
        # The server is being stopped, for instance. The page asks again.
        DBOS.logger.info("%s %s cannot be answered: %s", request.method, request.url.path, error)
        return JSONResponse({"detail": str(error)}, 503)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": "default-src 'self'"})

    app.mount("/page", StaticFiles(directory=PAGE), name="page")
    return app


async def server_sent(agent_id: str, offset: int) -> AsyncIterator[str]:
    """What an agent does as server-sent events, a comment when it does nothing, and in the end an event `end`.

    Without that event, because the server is stopped for instance, the browser comes back after `retry`.
    """
    yield f"retry: {RECONNECT_MS}\n\n"
    try:
        async for happened in inbox.progress(agent_id, offset):
            if happened is None:
                yield ": still here\n\n"
            else:
                at, entry = happened
                yield f"id: {at}\ndata: {json.dumps(entry)}\n\n"
    except DBOSException as error:
        DBOS.logger.info("A reader of agent %s is sent away: %s", agent_id, error)
        return
    yield "event: end\ndata:\n\n"
