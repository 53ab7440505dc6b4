"""The SQL files of this package as statements.

Kinds of file are in sql/<backend>/:

* named statements (`*.sql`): a line `-- name: record_steps` starts one, which may consist of several texts;
* the schema: schema.sql, listen_notify.sql and functions/, which a fresh database runs as they are;
* the history (`migrations/*.sql`): a line `-- migration: 22 online` starts the step from 21 to 22; and
  repairs/ for what no numbered step puts right.

In all of them a semicolon at the end of a line ends a text, whole-line comments are dropped, and
`-- include: file` stands for the texts of another file. In the Postgres files `{schema}` stands for the
quoted schema name, in the SQLite ones `{now_ms}` for the current time in epoch milliseconds.
"""

from __future__ import annotations

import re
import sqlite3
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# What schema.sql makes, and the last migration.
SCHEMA_VERSION = 125
# The last migration that is more than an index. From 100 on a number means the same in all languages, and an SDK that
# does not know the newest ones leaves its schema here: a client, which migrates nothing, takes it as it is.
TABLES_VERSION = 123

NOT_STATEMENTS = frozenset({"schema.sql", "listen_notify.sql"})

_NAME = re.compile(r"--\s*name:\s*(\w+)\s*")
_MIGRATION = re.compile(r"--\s*migration:\s*(\d+)((?:\s+\w+)*)\s*")
_INCLUDE = re.compile(r"--\s*include:\s*(\S+)\s*")
_DOLLAR_QUOTE = re.compile(r"\$[a-z_]+\$")


class Statement(NamedTuple):
    """A named operation: one text, or several to be run in this order in one transaction."""

    name: str
    texts: tuple[str, ...]


class Migration(NamedTuple):
    """The step to `version`. An online one runs text by text outside a transaction and may be repeated."""

    version: int
    online: bool
    texts: tuple[str, ...]


def quote_identifier(name: str) -> str:
    """The name as SQL spells it in double quotes; any name is legal."""
    return '"' + name.replace('"', '""') + '"'


@cache
def load_statements(backend: str, schema: str | None) -> dict[str, Statement]:
    """All named statements of a backend ("sqlite" or "postgres"), for this schema (None on SQLite)."""
    statements: dict[str, Statement] = {}
    for name in _file_names(backend):
        if name in NOT_STATEMENTS:
            continue
        for statement in _read_named(backend, name, _substitutions(schema)):
            if statement.name in statements:
                raise ValueError(f"Statement {statement.name} of {backend}/{name} is in another file as well.")
            statements[statement.name] = statement
    return statements


@cache
def load_schema(backend: str, schema: str | None, *, use_listen_notify: bool = False) -> tuple[str, ...]:
    """The texts that make a fresh database, without the note of the version."""
    names = ["schema.sql"] + (["listen_notify.sql"] if use_listen_notify else [])
    lines = [line for name in names for line in _lines(backend, name)]
    return tuple(split_texts(lines, f"{backend}/schema.sql", _substitutions(schema)))


@cache
def load_migrations(backend: str, schema: str | None, *, use_listen_notify: bool = False) -> tuple[Migration, ...]:
    """The history in order. Versions that change nothing on this backend are missing."""
    blocks: dict[int, tuple[bool, list[str]]] = {}
    for name in _file_names(backend, "migrations"):
        lines: list[str] = []
        for line in _lines(backend, f"migrations/{name}"):
            header = _MIGRATION.fullmatch(line)
            if header is None:
                lines.append(line)
                continue
            options = frozenset(header[2].split())
            if unknown := options - {"online", "listen_notify"}:
                raise ValueError(f"Unknown option {sorted(unknown)} of migration {header[1]} in {backend}/{name}.")
            lines = []
            if use_listen_notify or "listen_notify" not in options:
                lines = blocks.setdefault(int(header[1]), ("online" in options, lines))[1]
    return tuple(
        Migration(
            version,
            online,
            tuple(split_texts(lines, f"{backend} migration {version}", _substitutions(schema))),
        )
        for version, (online, lines) in sorted(blocks.items())
    )


def load_repair(backend: str, name: str) -> tuple[str, ...]:
    """The texts of one file in repairs/."""
    path = f"repairs/{name}.sql"
    return tuple(split_texts([*_lines(backend, path)], f"{backend}/{path}", _substitutions(None)))


def _read_named(backend: str, name: str, substitutions: dict[str, str]) -> Iterator[Statement]:
    current: str | None = None
    lines: list[str] = []
    for line in [*_lines(backend, name), "-- name: end_of_file"]:
        header = _NAME.fullmatch(line)
        if header is None:
            lines.append(line)
            continue
        texts = tuple(split_texts(lines, f"{backend}/{name}", substitutions))
        if current is not None and not texts:
            raise ValueError(f"Statement {current} of {backend}/{name} is empty.")
        if current is None and texts:
            raise ValueError(f"{backend}/{name} has SQL above its first `-- name:` line.")
        if current is not None:
            yield Statement(current, texts)
        current, lines = header[1], []


def split_texts(lines: list[str], source: str, substitutions: dict[str, str]) -> Iterator[str]:
    """Split at semicolons at line ends; bodies of functions ($word$ quoted) stay whole."""
    text: list[str] = []
    quote: str | None = None
    for line in lines:
        if quote is None and (not line.strip() or line.lstrip().startswith("--")):
            continue
        text.append(line)
        for mark in _DOLLAR_QUOTE.findall(line):
            quote = mark if quote is None else None if mark == quote else quote
        if quote is None and line.endswith(";"):
            yield _substitute("\n".join(text).removesuffix(";"), substitutions)
            text = []
    if text:
        raise ValueError(f"The last statement of {source} has no semicolon at its end: {text[0].strip()}")


def _substitutions(schema: str | None) -> dict[str, str]:
    return {"{schema}": quote_identifier(schema)} if schema is not None else {"{now_ms}": now_ms_expression()}


def now_ms_expression() -> str:
    """Epoch milliseconds in SQL of the running SQLite library. In whole seconds before 3.42."""
    if sqlite3.sqlite_version_info >= (3, 42):
        return "unixepoch('subsec') * 1000"
    return "strftime('%s','now') * 1000"


def _substitute(text: str, substitutions: dict[str, str]) -> str:
    for placeholder, value in substitutions.items():
        text = text.replace(placeholder, value)
    return text


def _file_names(backend: str, *folder: str) -> list[str]:
    directory = files("dbos.storage") / "sql" / backend
    for name in folder:
        directory /= name
    return sorted(entry.name for entry in directory.iterdir() if entry.name.endswith(".sql"))


def _lines(backend: str, path: str) -> Iterator[str]:
    """The lines of a file, with the lines of included files in their place."""
    file = files("dbos.storage") / "sql" / backend
    for name in path.split("/"):
        file /= name
    for line in file.read_text(encoding="utf-8").splitlines():
        include = _INCLUDE.fullmatch(line)
        if include is None:
            yield line.rstrip()
        else:
            yield from _lines(backend, include[1])
