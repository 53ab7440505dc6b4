"""Serve the agent inbox on this machine.

python -m agent_inbox                  on SQLite
python -m agent_inbox --db postgres    on Postgres, which it brings along

INBOX_DATA is the directory of the database and the outbox (default: inbox-data), INBOX_DATABASE_URL another database.
"""

import argparse
import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn
from dbos import DBOS

from .web import create_app

HOST = "127.0.0.1"


class Server(uvicorn.Server):
    """Stops the agents first: whoever reads along with them would hold up the end for ever."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await asyncio.to_thread(DBOS.destroy)
        await super().shutdown(sockets)


@contextmanager
def database(kind: str, directory: Path) -> Iterator[str]:
    """The URL of the database; the same at every start."""
    if url := os.environ.get("INBOX_DATABASE_URL"):
        yield url
    elif kind == "sqlite":
        yield f"sqlite:///{directory / 'agents.sqlite'}"
    else:
        from dbos import embedded_postgres

        server = embedded_postgres.start(directory / "postgres")
        try:
            yield server.url("agents")
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="agent_inbox", description="Agents that ask before they send.")
    parser.add_argument("--db", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    arguments = parser.parse_args()
    try:
        listener = socket.create_server((HOST, arguments.port))
    except OSError as error:
        parser.error(f"port {arguments.port} cannot be used ({error.strerror}); choose another one with --port")

    directory = Path(os.environ.get("INBOX_DATA", "inbox-data")).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    with listener, database(arguments.db, directory) as database_url:
        print(f"Agent inbox: http://{HOST}:{listener.getsockname()[1]}/", flush=True)
        with suppress(KeyboardInterrupt):
            Server(uvicorn.Config(create_app(database_url), log_level="warning")).run(sockets=[listener])


if __name__ == "__main__":
    main()
