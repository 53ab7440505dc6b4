"""What a database URL says: which backend, which file, which database, and how to show it without its
password.

The text alone decides the backend: what starts with `sqlite` is SQLite, everything else the Postgres family.
Driver names (`postgresql+psycopg2`) are accepted and ignored, since the library always connects with its own
driver.
"""

from __future__ import annotations

import re
from typing import Literal, NoReturn
from urllib.parse import parse_qsl, unquote

from .error import DBOSInitializationError

Backend = Literal["sqlite", "postgres"]

_SCHEMES = ("postgresql", "postgres", "cockroachdb", "sqlite")
_SECRET_PARAMETERS = re.compile(r"([?&](?:password|sslpassword)=)[^&#]*", re.IGNORECASE)
_PASSWORD = re.compile(r"^([^:/?#]*://[^:/?@]*:)(.*)@")

_HOSTS = re.compile(r"(?:[^:\[\]]*|\[[^\]]*\])(?::\d*)?(?:,(?:[^:\[\]]*|\[[^\]]*\])(?::\d*)?)*")

# Parameters that belong to Python's sqlite3 module and not to the file. The store makes its own choice for
# each.
_SQLITE_MODULE_PARAMETERS = frozenset(
    {"uri", "timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"}
)


def backend(url: str) -> Backend:
    """Which kind of database the URL names. Looks at its beginning only."""
    return "sqlite" if url.startswith("sqlite") else "postgres"


def masked(url: str) -> str:
    """The URL for logs and messages: passwords are replaced by `***`."""
    # A password with an unescaped "?" ends before its "@" for any parser; then everything to the last "@"
    # goes.
    head, mark, query = url.partition("?")
    if "@" in head or "@" not in query:
        url = _PASSWORD.sub(r"\1***@", head) + mark + query
    else:
        url = _PASSWORD.sub(r"\1***@", url)
    return _SECRET_PARAMETERS.sub(r"\1***", url)


def database_name_for(app_name: str) -> str:
    """The application's name as a database or file name: `my-app` gives `my_app`, `9abc` gives `_9abc`."""
    name = app_name.replace("-", "_").replace(" ", "_").lower()
    return f"_{name}" if name[:1].isdigit() else name


def default_sqlite_url(app_name: str) -> str:
    """Where state lives when no URL is configured: a file in the working directory."""
    return f"sqlite:///{database_name_for(app_name)}.sqlite"


def sqlite_path(url: str) -> str:
    """What to pass to `sqlite3.connect`.

    Returns:
        A path as written (relative ones stay relative), `:memory:`, or a text starting with `file:`, which
        must be opened with `uri=True`.

    Raises:
        DBOSInitializationError: The URL is not one of these forms.
    """
    match = re.fullmatch(r"sqlite(?:\+(\w+))?://([^/?]*)(?:/([^?]*))?(?:\?(.*))?", url, re.DOTALL)
    if match is None:
        _refuse(url, "a SQLite URL has the form sqlite:///file.sqlite or sqlite:////absolute/file.sqlite")
    driver, host, path, query = match.groups()
    if driver not in (None, "pysqlite"):
        _refuse(url, f'the driver "{driver}" is not used by this library. Write sqlite:/// instead')
    if host:
        _refuse(url, "a SQLite URL names no host: three slashes start a relative path, four an absolute one")
    if not path or path == ":memory:":
        return ":memory:"
    parameters = parse_qsl(query or "", keep_blank_values=True)
    if path.startswith("file:"):
        if ("uri", "true") not in parameters:
            _refuse(url, 'a "file:" name needs the parameter uri=true')
        # Kept as written: SQLite decodes the percent signs of a file URI itself.
        parts = (query or "").split("&")
        kept = [part for part in parts if part.partition("=")[0] not in _SQLITE_MODULE_PARAMETERS]
        return f"{path}?{'&'.join(kept)}" if kept else path
    unknown = [name for name, _ in parameters if name not in _SQLITE_MODULE_PARAMETERS]
    if unknown:
        _refuse(
            url,
            f"SQLite has no parameter {unknown[0]} for a plain path. Its own parameters need a file URI: "
            f"sqlite:///file:{path}?{unknown[0]}=...&uri=true",
        )
    return path


def postgres_conninfo(url: str) -> str:
    """The URL in the form that libpq and psycopg accept, with host, credentials and parameters as written.

    Raises:
        DBOSInitializationError: The URL is not for Postgres, or names no database.
    """
    authority, path, query = _postgres_parts(url)
    # In a query a plus sign is a blank for most URL libraries, but not for libpq.
    parameters = f"?{query.replace('+', '%20')}" if query else ""
    return f"postgresql://{authority}/{path}{parameters}"


def database_name(url: str) -> str:
    """The name of the database that a Postgres URL names.

    Raises:
        DBOSInitializationError: The URL is not for Postgres, or names no database.
    """
    return unquote(_postgres_parts(url)[1])


def query_values(url: str, name: str) -> list[str]:
    """All values that the URL's query gives to a parameter."""
    query = url.partition("?")[2].partition("#")[0]
    return [value for key, value in parse_qsl(query, keep_blank_values=True) if key == name]


def _postgres_parts(url: str) -> tuple[str, str, str]:
    """Credentials and hosts, database name still percent-encoded, query."""
    scheme, separator, rest = url.partition("://")
    kind = scheme.partition("+")[0]
    if not separator:
        _refuse(url, "a database URL has the form postgresql://user:password@host:5432/database")
    if kind not in _SCHEMES or kind == "sqlite":
        _refuse(
            url,
            f'"{kind}" is neither Postgres nor SQLite. Use postgresql://user:password@host:5432/database or '
            "sqlite:///file.sqlite",
        )
    location, _, query = rest.partition("?")
    authority, _, path = location.partition("/")
    no_credentials = "@" not in authority
    if authority.count("@") > 1 or (
        no_credentials and ("@" in path or ("@" in query and not _HOSTS.fullmatch(authority)))
    ):
        _refuse(
            url,
            'a password or name contains "/", "@" or "?". Percent-encode it: / is %2F, @ is %40, ? is %3F '
            "(urllib.parse.quote(password, safe='') does it)",
        )
    if not path:
        _refuse(
            url,
            "Database name must be specified: end the URL with /<database>, as in "
            "postgresql://user:password@host:5432/my_app",
        )
    return authority, path, query


def _refuse(url: str, reason: str) -> NoReturn:
    raise DBOSInitializationError(f"The system database URL {masked(url)!r} cannot be used: {reason}.")
