"""What the driver of Postgres raises, as the kinds of trouble that a store has."""

from __future__ import annotations

from .store import StoreFailed, StoreRefused, StoreUnavailable, StoreUnreachable


def translate(error: Exception) -> Exception:
    """Turn the driver's errors into the three kinds of trouble a store has."""
    import psycopg
    import psycopg_pool

    if isinstance(error, (StoreUnavailable, StoreFailed, StoreRefused)):
        return error
    if isinstance(error, (psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed, psycopg_pool.TooManyRequests)):
        return StoreUnreachable(str(error))
    if not isinstance(error, psycopg.Error):
        if isinstance(error, (UnicodeEncodeError, OverflowError)):
            return StoreRefused(str(error))
        return error
    code = error.sqlstate or ""
    text = str(error).strip()
    if code in ("25P03", "40001", "40P01", "55P03"):
        return StoreUnavailable(text)
    if code[:2] in ("08", "53") or (code[:2] == "57" and code != "57014"):
        return StoreUnreachable(text)
    if code == "23505" and error.diag.constraint_name == "streams_pkey":
        # Another implementation is appending to the stream; if that execution has lost its workflow, its entry will not
        # stay. Ours gets the next offset (04 R301).
        return StoreUnavailable(text)
    if code[:2] in ("22", "23", "54"):
        return StoreRefused(text)
    # A plain DatabaseError without code comes from the client library: the connection broke while it read a result.
    lost = isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)) or type(error) is psycopg.DatabaseError
    if not code and lost:
        return StoreUnreachable(text)
    if isinstance(error, psycopg.DataError):
        return StoreRefused(text)
    return StoreFailed(f"The system database refused a statement: {text} (SQLSTATE {code or 'unknown'}).")
