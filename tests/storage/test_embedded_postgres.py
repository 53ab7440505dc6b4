"""The embedded server keeps its address and its data, whatever happens to it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from dbos import embedded_postgres


@pytest.fixture(scope="module")
def server() -> Iterator[embedded_postgres.EmbeddedPostgres]:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        server = embedded_postgres.start(Path(directory) / "server")
        try:
            yield server
        finally:
            server.stop()


def test_what_was_committed_survives_an_immediate_restart(server: embedded_postgres.EmbeddedPostgres) -> None:
    url = server.url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (value TEXT)")
        connection.execute("INSERT INTO kept VALUES ('x')")
        server.restart_immediately()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT value FROM kept").fetchall() == [("x",)]


def test_starting_a_running_server_adopts_it(server: embedded_postgres.EmbeddedPostgres) -> None:
    assert embedded_postgres.start(server.directory) == server


def test_a_stopped_server_starts_again_at_the_same_url(server: embedded_postgres.EmbeddedPostgres) -> None:
    server.stop()
    server.stop()
    assert not server.running()
    again = embedded_postgres.start(server.directory)
    assert again.url("x") == server.url("x")
    with psycopg.connect(again.url()):
        pass


def test_the_server_asks_for_the_password(server: embedded_postgres.EmbeddedPostgres) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.url().replace(server.password, "wrong"))


def test_a_server_that_cannot_start_shows_its_log(server: embedded_postgres.EmbeddedPostgres) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        with pytest.raises(embedded_postgres.DBOSException, match=r"in use|could not bind"):
            embedded_postgres.start(Path(directory) / "second", port=server.port)
