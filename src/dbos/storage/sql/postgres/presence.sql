-- Presence: which processes own what runs, and what becomes of the work of those that are gone. The first 18 characters
-- of an owner token name the process that made it, if the token is a UUID of version 8 (see ids.py).

-- name: find_owners
-- The processes that own running workflows of application $1, version $2.
SELECT DISTINCT left(owner_xid, 18) FROM {schema}.workflow_status
WHERE status = 'PENDING' AND application_version = $2::text
  AND (application_name = $1::text OR application_name IS NULL)
  AND owner_xid LIKE '________-____-8___-____-____________';

-- name: find_dead
-- Which of the processes in $2 (a JSON object of their keys) are gone: nobody holds the lock on the key. It is asked
-- only while our own key ($1) is seen to be locked; otherwise the connection that holds our lock is lost, and probably
-- those of others too, or locks mean nothing here, as behind a pooler in transaction mode. With $3 nobody is judged just
-- after the server has started either: the processes are still on their way back.
WITH own AS MATERIALIZED (
  SELECT NOT pg_try_advisory_xact_lock($1::int8)
    AND NOT ($3::boolean AND pg_postmaster_start_time() > clock_timestamp() - interval '5 seconds') AS may_judge
), asked AS MATERIALIZED (
  SELECT key, value::int8 AS lock FROM json_each_text($2::json), own WHERE own.may_judge
)
SELECT key FROM asked WHERE pg_try_advisory_xact_lock(lock);

-- name: requeue_dead
-- Hand the PENDING workflows of the processes in $3 (a JSON array) back to their queue, or to the internal one ($1), as
-- requeue_pending does; of version $4 of the application $5 only, whose code is here. The queues they wait on.
UPDATE {schema}.workflow_status
SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL,
    queue_name = COALESCE(queue_name, $1::text), updated_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint
WHERE status = 'PENDING' AND application_version = $4::text
  AND (application_name = $5::text OR application_name IS NULL) AND $2::int8 IS NOT NULL
  AND owner_xid LIKE '________-____-8___-____-____________'
  AND left(owner_xid, 18) = ANY (ARRAY(SELECT json_array_elements_text($3::json)))
RETURNING queue_name;
