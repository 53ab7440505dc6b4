"""What a database URL says."""

import sqlite3

import psycopg.conninfo
import pytest

from dbos.database_url import (
    backend,
    database_name,
    default_sqlite_url,
    masked,
    postgres_conninfo,
    query_values,
    sqlite_path,
)
from dbos.error import DBOSInitializationError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///x.sqlite", "sqlite"),
        ("sqlite+pysqlite:///x", "sqlite"),
        ("postgresql://h/d", "postgres"),
        ("postgres://h/d", "postgres"),
        ("postgresql+asyncpg://h/d", "postgres"),
        ("cockroachdb://h/d", "postgres"),
    ],
)
def test_the_beginning_of_the_url_chooses_the_backend(url, expected):
    assert backend(url) == expected


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:secret@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql+psycopg2://u:se%40cret@h/d?x=1", "postgresql+psycopg2://u:***@h/d?x=1"),
        ("postgresql://u:se@cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:se/cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:se?cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u:se#cret@h/d", "postgresql://u:***@h/d"),
        ("postgresql://:secret@h/d", "postgresql://:***@h/d"),
        ("postgresql://h/d?user=u&password=secret&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        ("postgresql://h/d?sslpassword=secret", "postgresql://h/d?sslpassword=***"),
        ("postgresql://u@h:5432/d", "postgresql://u@h:5432/d"),
        ("postgresql://h/d", "postgresql://h/d"),
        ("sqlite:///x.sqlite", "sqlite:///x.sqlite"),
        ("not a url", "not a url"),
    ],
)
def test_passwords_are_masked(url, shown):
    assert masked(url) == shown


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///x.sqlite", "x.sqlite"),
        ("sqlite:///sub/x.sqlite", "sub/x.sqlite"),
        ("sqlite:////tmp/x.sqlite", "/tmp/x.sqlite"),
        ("sqlite+pysqlite:////tmp/x.sqlite", "/tmp/x.sqlite"),
        ("sqlite:///C:\\data\\x.sqlite", "C:\\data\\x.sqlite"),
        ("sqlite:///a%20b.sqlite", "a%20b.sqlite"),
        ("sqlite:///x.sqlite?timeout=5", "x.sqlite"),
        ("sqlite://", ":memory:"),
        ("sqlite:///", ":memory:"),
        ("sqlite:///:memory:", ":memory:"),
        ("sqlite+pysqlite:///:memory:", ":memory:"),
        ("sqlite:///file::memory:?cache=shared&uri=true", "file::memory:?cache=shared"),
        ("sqlite:///file:/tmp/x.sqlite?mode=ro&uri=true&timeout=5", "file:/tmp/x.sqlite?mode=ro"),
        ("sqlite:///file:x.sqlite?uri=true", "file:x.sqlite"),
    ],
)
def test_a_sqlite_url_gives_what_sqlite_connects_to(url, path):
    assert sqlite_path(url) == path


def test_two_connections_to_a_shared_memory_url_see_the_same_tables():
    path = sqlite_path("sqlite:///file:leaves?mode=memory&cache=shared&uri=true")
    one, two = sqlite3.connect(path, uri=True), sqlite3.connect(path, uri=True)
    one.execute("create table t (x)")
    assert two.execute("select count(*) from t").fetchone() == (0,)
    one.close()
    two.close()


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("sqlite+aiosqlite:///x.sqlite", "aiosqlite"),
        ("sqlite://x.sqlite", "three slashes"),
        ("sqlite:x.sqlite", "sqlite:///file.sqlite"),
        ("sqlite:///x.sqlite?mode=ro", "file URI"),
        ("sqlite:///file::memory:?cache=shared", "uri=true"),
    ],
)
def test_a_sqlite_url_that_cannot_work_is_refused_with_advice(url, advice):
    with pytest.raises(DBOSInitializationError) as caught:
        sqlite_path(url)
    assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        (
            "postgres://u:p@h:5432/d",
            {"user": "u", "password": "p", "host": "h", "port": "5432", "dbname": "d"},
        ),
        ("postgresql+psycopg2://u@h/d", {"user": "u", "host": "h", "dbname": "d"}),
        ("postgresql+psycopg://h/d", {"host": "h", "dbname": "d"}),
        ("cockroachdb://h:26257/d", {"host": "h", "port": "26257", "dbname": "d"}),
        ("postgresql:///d?host=/var/run/pg", {"host": "/var/run/pg", "dbname": "d"}),
        ("postgresql://u:p%40%2F%3F@h/d", {"user": "u", "password": "p@/?", "host": "h", "dbname": "d"}),
        ("postgresql://u:a+b@h/d", {"user": "u", "password": "a+b", "host": "h", "dbname": "d"}),
        ("postgresql://h/d?options=-c+x%3D1", {"host": "h", "dbname": "d", "options": "-c x=1"}),
        ("postgresql://h/d?options=-c%20x%3D1", {"host": "h", "dbname": "d", "options": "-c x=1"}),
        ("postgresql://[::1]:5432/d", {"host": "::1", "port": "5432", "dbname": "d"}),
        ("postgresql://h1:1,h2:2/d", {"host": "h1,h2", "port": "1,2", "dbname": "d"}),
        (
            "postgresql://h:5432/d?user=me@realm",
            {"user": "me@realm", "host": "h", "port": "5432", "dbname": "d"},
        ),
    ],
)
def test_any_postgres_url_becomes_one_that_libpq_reads(url, parts):
    assert psycopg.conninfo.conninfo_to_dict(postgres_conninfo(url)) == parts


@pytest.mark.parametrize("url", ["postgresql://h", "postgresql://h/", "postgresql://u:p@h?sslmode=require"])
def test_a_postgres_url_must_name_a_database(url):
    with pytest.raises(DBOSInitializationError, match="Database name must be specified"):
        database_name(url)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("mysql://u:secret@h/d", "neither Postgres nor SQLite"),
        ("host=h dbname=d", "postgresql://user:password@host"),
        ("postgresql://u:secr@et@h/d", "Percent-encode"),
        ("postgresql://u:secr/et@h/d", "Percent-encode"),
        ("postgresql://u:secr?et@h/d", "Percent-encode"),
    ],
)
def test_a_url_that_is_not_for_postgres_is_refused_with_advice_and_without_its_password(url, advice):
    with pytest.raises(DBOSInitializationError) as caught:
        postgres_conninfo(url)
    assert advice in str(caught.value)
    assert "secr" not in str(caught.value)


def test_the_database_name_is_decoded():
    assert database_name("postgresql://u:p@h/my%20db?x=/y") == "my db"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("my-app", "sqlite:///my_app.sqlite"),
        ("9abc", "sqlite:///_9abc.sqlite"),
        ("My App", "sqlite:///my_app.sqlite"),
    ],
)
def test_the_default_file_is_named_after_the_application(name, url):
    assert default_sqlite_url(name) == url


def test_all_values_of_a_parameter_are_found():
    assert query_values("postgresql://h/d?a=1&b=2&a=%33", "a") == ["1", "3"]
    assert query_values("postgresql://h/d", "a") == []
