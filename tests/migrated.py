"""Migrated Postgres databases that tests use one after the other.

Making a database and migrating it takes 200 to 400 ms, since a database is 300 files; to empty one takes 10. So a
database that a test gives back is emptied and lent again, if nobody could tell it from a new one: nobody is connected,
nothing but rows has changed, and few of them were written, so no index is full of entries that are dead.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import psycopg

from dbos.storage.migrate import migrate_postgres
from tests.databases import create_database, fresh_postgres_url, new_database_name, url_of

# How long the server may take to notice that the sessions of a test are closed, or that its processes were killed.
_SESSIONS_END_SECONDS = 0.3
# By how much a database may have grown, and still be used again.
_MOST_BYTES = 1_000_000

# Everything but rows, as text: schemas, tables, columns, functions, triggers, constraints, settings, the version.
_SHAPE = """
SELECT md5(string_agg(fact, E'\\n' ORDER BY fact)) FROM (
    SELECT 'schema ' || nspname || COALESCE(nspacl::text, '') AS fact FROM pg_namespace
    WHERE nspname !~ '^pg_(toast_)?temp_'
    UNION ALL
    SELECT concat_ws(' ', 'relation', relnamespace::regnamespace, relname, relkind, reltuples, relowner, relacl,
        reloptions)
    FROM pg_class WHERE relnamespace <> 'pg_catalog'::regnamespace AND relkind <> 't' AND relpersistence <> 't'
        AND relnamespace <> 'pg_toast'::regnamespace
    UNION ALL
    SELECT concat_ws(' ', 'column', attrelid::regclass, attname, atttypid, attnotnull, atthasdef, attacl)
    FROM pg_attribute WHERE attnum > 0 AND attrelid >= 16384
        AND attrelid IN (SELECT oid FROM pg_class WHERE relkind = 'r')
    UNION ALL
    SELECT concat_ws(' ', 'function', oid::regprocedure, md5(prosrc), proacl) FROM pg_proc WHERE oid >= 16384
    UNION ALL
    SELECT concat_ws(' ', 'trigger', tgrelid::regclass, tgname, tgenabled) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL
    SELECT concat_ws(' ', 'constraint', conrelid::regclass, conname, convalidated) FROM pg_constraint WHERE oid >= 16384
    UNION ALL
    SELECT concat_ws(' ', 'setting', setrole, setconfig) FROM pg_db_role_setting
    WHERE setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    UNION ALL
    SELECT concat_ws(' ', 'statistics', starelid::regclass, staattnum) FROM pg_statistic WHERE starelid >= 16384
    UNION ALL
    SELECT concat_ws(' ', 'version', version) FROM dbos.dbos_migrations
) AS facts
"""
_SIZE = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relnamespace = 'dbos'::regnamespace"
_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"

_given_back: list[str] = []


@contextmanager
def migrated_postgres_url() -> Iterator[str]:
    """The URL of a database with the schema of this release and without rows, until the block ends."""
    shape = _template().shape
    url = _given_back.pop() if _given_back else _template().copy()
    yield url
    try:
        reusable = _emptied(url, shape)
    except psycopg.Error:
        # Dropped, renamed, locked or broken by the test; the server may even be down.
        reusable = False
    if reusable:
        _given_back.append(url)


def _emptied(url: str, shape: str) -> bool:
    """Delete all rows, unless something else would stay that a test could see."""
    with psycopg.connect(url, autocommit=True) as connection:

        def ask(query: str) -> Any:
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            return row[0]

        give_up_at = time.monotonic() + _SESSIONS_END_SECONDS
        while ask(_SESSIONS):
            if time.monotonic() > give_up_at:
                return False
            time.sleep(0.01)
        if ask(_SHAPE) != shape or ask(_SIZE) > _template().size_bytes + _MOST_BYTES:
            return False
        connection.execute("; ".join(f"DELETE FROM dbos.{table}" for table in _template().tables).encode())
    return True


@dataclass(frozen=True)
class _Template:
    """A migrated database that nobody uses, to be copied."""

    name: str
    shape: str
    size_bytes: int
    tables: list[str]

    def copy(self) -> str:
        name = new_database_name()
        create_database(name, self.name)
        return url_of(name)


@cache
def _template() -> _Template:
    url = fresh_postgres_url()
    migrate_postgres(url, schema="dbos", use_listen_notify=True, connect_kwargs={})
    with psycopg.connect(url, autocommit=True) as connection:

        def ask(query: str) -> list[Any]:
            return [row[0] for row in connection.execute(query.encode())]

        (shape,), (size_bytes,) = ask(_SHAPE), ask(_SIZE)
        # Rows go with the workflow they belong to, so that is the last one; the version of the schema stays.
        tables = ask(
            "SELECT relname FROM pg_class WHERE relnamespace = 'dbos'::regnamespace AND relkind = 'r' "
            "AND relname <> 'dbos_migrations' ORDER BY relname = 'workflow_status', relname"
        )
        assert not any(ask(f"SELECT EXISTS (SELECT FROM dbos.{table})")[0] for table in tables)
    return _Template(urlsplit(url).path[1:], shape, int(size_bytes), tables)
