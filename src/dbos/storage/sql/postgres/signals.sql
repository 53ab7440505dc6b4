-- Signals between processes. On SQLite `PRAGMA data_version` does this work.

-- name: notify
SELECT pg_notify($1::text, $2::text);
