-- Presence: which processes own what runs, and what becomes of the work of those that are gone. The first 18 characters
-- of an owner token name the process that made it, if the token is a UUID of version 8 (see ids.py).

-- name: find_owners
-- The processes that own running workflows of application ?1, version ?2.
SELECT DISTINCT substr(owner_xid, 1, 18) FROM workflow_status
WHERE status = 'PENDING' AND application_version = ?2 AND (application_name = ?1 OR application_name IS NULL)
  AND owner_xid LIKE '________-____-8___-____-____________';

-- name: requeue_dead
-- Hand the PENDING workflows of the processes in ?3 (a JSON array) back to their queue, or to the internal one (?1), as
-- requeue_pending does; of version ?4 of the application ?5 only, whose code is here. The queues they wait on.
UPDATE workflow_status
SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL,
    queue_name = COALESCE(queue_name, ?1), updated_at = ?2
WHERE status = 'PENDING' AND application_version = ?4 AND (application_name = ?5 OR application_name IS NULL)
  AND owner_xid LIKE '________-____-8___-____-____________'
  AND substr(owner_xid, 1, 18) IN (SELECT value FROM json_each(?3))
RETURNING queue_name;
