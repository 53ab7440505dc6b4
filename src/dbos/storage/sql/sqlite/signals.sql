-- Signals between processes. Postgres has notifications; here other processes look at the data version.

-- name: notify
SELECT ?1, ?2 WHERE FALSE;
