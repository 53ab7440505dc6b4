-- Queues: their configuration, and claims within their limits.

-- Parameters of a configuration: $1 name, $2 application, $3 global concurrency, $4 worker concurrency, $5 and $6 rate
-- limit and its period, $7 partition concurrency, $8 partition worker concurrency, $9 and $10 partition rate limit and
-- its period, $11 polling interval, $12 partitioned, $13 now.

-- name: register_queue
-- Insert, or overwrite when $14 and nobody else owns the queue. A queue without owner gets the registrar.
INSERT INTO {schema}.queues AS known
  (name, application_name, concurrency, worker_concurrency, rate_limit_max, rate_limit_period_sec, partition_concurrency,
   partition_worker_concurrency, partition_rate_limit_max, partition_rate_limit_period_sec, polling_interval_sec,
   partition_queue, updated_at, priority_enabled)
VALUES ($1::text, $2::text, $3::int4, $4::int4, $5::int4, $6::float8, $7::int4, $8::int4, $9::int4, $10::float8,
        $11::float8, $12::boolean, $13::int8, TRUE)
ON CONFLICT (name) DO UPDATE
SET application_name = COALESCE(known.application_name, excluded.application_name),
    concurrency = excluded.concurrency, worker_concurrency = excluded.worker_concurrency,
    rate_limit_max = excluded.rate_limit_max, rate_limit_period_sec = excluded.rate_limit_period_sec,
    partition_concurrency = excluded.partition_concurrency,
    partition_worker_concurrency = excluded.partition_worker_concurrency,
    partition_rate_limit_max = excluded.partition_rate_limit_max,
    partition_rate_limit_period_sec = excluded.partition_rate_limit_period_sec,
    polling_interval_sec = excluded.polling_interval_sec, partition_queue = excluded.partition_queue,
    updated_at = GREATEST(excluded.updated_at, known.updated_at + 1), priority_enabled = TRUE
WHERE $14::boolean AND (known.application_name IS NULL OR excluded.application_name IS NULL
                        OR known.application_name = excluded.application_name);

-- name: update_queue
-- Change a configuration that is still the one that was read ($14, its updated_at).
UPDATE {schema}.queues
SET application_name = COALESCE(application_name, $2::text), concurrency = $3::int4, worker_concurrency = $4::int4,
    rate_limit_max = $5::int4, rate_limit_period_sec = $6::float8, partition_concurrency = $7::int4,
    partition_worker_concurrency = $8::int4, partition_rate_limit_max = $9::int4,
    partition_rate_limit_period_sec = $10::float8, polling_interval_sec = $11::float8, partition_queue = $12::boolean,
    updated_at = GREATEST($13::int8, updated_at + 1)
WHERE name = $1::text AND updated_at = $14::int8
RETURNING name;

-- name: find_queue
SELECT name, application_name, concurrency, worker_concurrency, rate_limit_max, rate_limit_period_sec, partition_concurrency,
       partition_worker_concurrency, partition_rate_limit_max, partition_rate_limit_period_sec, polling_interval_sec,
       updated_at
FROM {schema}.queues WHERE name = $1::text;

-- name: list_queues
-- Of the applications in $1 (a JSON array) and of none; of all applications when $1 is NULL.
SELECT name, application_name, concurrency, worker_concurrency, rate_limit_max, rate_limit_period_sec, partition_concurrency,
       partition_worker_concurrency, partition_rate_limit_max, partition_rate_limit_period_sec, polling_interval_sec,
       updated_at
FROM {schema}.queues
WHERE $1::text IS NULL OR application_name IS NULL
   OR application_name = ANY (ARRAY(SELECT json_array_elements_text($1::json)))
ORDER BY name;

-- name: delete_queue
-- Whoever owns it.
DELETE FROM {schema}.queues WHERE name = $1::text;

-- name: has_waiting
-- Whether something waits or is delayed on queue $1.
SELECT EXISTS (SELECT FROM {schema}.workflow_status WHERE queue_name = $1::text AND status = 'ENQUEUED')
    OR EXISTS (SELECT FROM {schema}.workflow_status WHERE status = 'DELAYED' AND queue_name = $1::text);

-- name: find_holder
-- Who holds deduplication id $2 of queue $1.
SELECT workflow_uuid FROM {schema}.workflow_status WHERE queue_name = $1::text AND deduplication_id = $2::text;

-- name: find_waiting_queues
-- Which of the queues in $1 (a JSON array of names) have something waiting for application $2 that a process of version
-- $3, which is the latest or not ($4), can run: with one of the functions in $5 (a JSON array), or on queue $6.
SELECT q.name
FROM json_array_elements_text($1::json) AS q (name)
WHERE EXISTS (
  SELECT FROM {schema}.workflow_status
  WHERE queue_name = q.name AND status = 'ENQUEUED' AND (application_name = $2::text OR application_name IS NULL)
    AND (application_version = $3::text OR (application_version IS NULL AND $4::boolean))
    AND (q.name = $6::text OR name = ANY (ARRAY(SELECT json_array_elements_text($5::json)))));

-- name: promote_delayed
-- Make the delayed workflows of application $1 that are due at $2 ENQUEUED; the queues they wait on.
UPDATE {schema}.workflow_status
SET status = 'ENQUEUED', deduplication_id = CASE WHEN is_debounced THEN NULL ELSE deduplication_id END
WHERE workflow_uuid IN (
  SELECT workflow_uuid FROM {schema}.workflow_status
  WHERE status = 'DELAYED' AND delay_until_epoch_ms <= $2::int8
    AND (application_name = $1::text OR application_name IS NULL)
  ORDER BY delay_until_epoch_ms
  LIMIT 1000
  FOR UPDATE SKIP LOCKED) AND status = 'DELAYED'
RETURNING queue_name;

-- name: find_next_delayed
SELECT min(delay_until_epoch_ms) FROM {schema}.workflow_status
WHERE status = 'DELAYED' AND (application_name = $1::text OR application_name IS NULL);

-- name: set_workflow_delay
UPDATE {schema}.workflow_status
SET delay_until_epoch_ms = $2::int8, updated_at = $3::int8
WHERE workflow_uuid = $1::text AND status = 'DELAYED'
RETURNING workflow_uuid;

-- name: guard_queue
-- Claims of a queue with shared limits come one after the other, whatever process, version or application makes them:
-- each counts only what has been claimed. Held until the claim has committed.
SELECT pg_advisory_xact_lock(hashtextextended('dbos.queue.' || $1::text, 0));

-- Parameters of a claim: $1 queue, $2 now, $3 token of this claim, $4 executor, $5 version, $6 application, $7 whether
-- the version is the latest, as far as the claimer knows (takes rows without a version), $8 how many at most, $9 names of the functions that are
-- registered here (a JSON array; NULL is any), $10 global concurrency, $11 and $12 rate limit and its period in ms, $13 whether
-- the queue has a rate limit of either kind, $14 when its configuration was last changed, as far as the claimer knows (NULL
-- is a queue without a row).

-- name: claim_workflows
-- Take waiting workflows for this executor, and give back all that running them needs. Rows locked by another claimer
-- are passed over. Start times are read after the guard was passed, so that a window of the rate limit is exact.
WITH clock AS MATERIALIZED (
  SELECT (EXTRACT(epoch FROM clock_timestamp()) * 1000.0)::int8 AS ms
),
-- include: parts/room.sql
), candidates AS MATERIALIZED (
  SELECT workflow_uuid, ctid::text AS version FROM {schema}.workflow_status
  WHERE queue_name = $1::text AND status = 'ENQUEUED'
    AND (application_name = $6::text OR application_name IS NULL)
    AND (application_version = $5::text OR (application_version IS NULL AND $7::boolean AND (SELECT is_mine FROM latest)))
    AND ($9::text IS NULL OR name = ANY (ARRAY(SELECT json_array_elements_text($9::json)))
         -- What this executor itself has recovered is claimed in any case, and reported if its function is missing.
         OR ($1::text = '_dbos_internal_queue' AND executor_id = $4::text))
  ORDER BY priority, created_at, workflow_uuid
  LIMIT (SELECT GREATEST(n, 0) FROM room)
  FOR UPDATE SKIP LOCKED
)
-- include: parts/claim.sql
;

-- name: claim_partitions
-- The same for a partitioned queue, all partitions in one statement: of each up to what its limits leave, the longest
-- waiting first over all. $15 partition concurrency, $16 partition worker concurrency, $17 what runs here of each
-- partition (a JSON object), $18 and $19 partition rate limit and its period in ms. The keys are found by going from
-- one to the next in the index. What runs is counted once for all of them: by partition, the planner would go through
-- all that runs anywhere for each. A partition that runs one at a time, on a queue with no other shared limit, does so over
-- all applications. The heads are chosen first and locked then: one that somebody else has locked is passed over in this
-- claim, and never replaced by the one behind it.
WITH RECURSIVE clock AS MATERIALIZED (
  SELECT (EXTRACT(epoch FROM clock_timestamp()) * 1000.0)::int8 AS ms
),
-- include: parts/room.sql
), keys AS (
  (SELECT queue_partition_key AS key FROM {schema}.workflow_status
   WHERE queue_name = $1::text AND status = 'ENQUEUED' AND queue_partition_key IS NOT NULL
   ORDER BY queue_partition_key LIMIT 1)
  UNION ALL
  SELECT (SELECT queue_partition_key FROM {schema}.workflow_status
          WHERE queue_name = $1::text AND status = 'ENQUEUED' AND queue_partition_key > keys.key
          ORDER BY queue_partition_key LIMIT 1)
  FROM keys WHERE keys.key IS NOT NULL
), pending AS MATERIALIZED (
  SELECT jsonb_object_agg(key, n) AS by_key
  FROM (
    SELECT queue_partition_key AS key, count(*) AS n FROM {schema}.workflow_status
    WHERE queue_name = $1::text AND status = 'PENDING' AND queue_partition_key IS NOT NULL
      AND (application_name = $6::text OR application_name IS NULL
           OR ($15::int8 = 1 AND $10::int8 IS NULL AND $11::int8 IS NULL AND $18::int8 IS NULL))
    GROUP BY queue_partition_key
  ) AS counted
), heads AS MATERIALIZED (
  SELECT head.workflow_uuid, head.version
  FROM keys
  CROSS JOIN LATERAL (
    SELECT LEAST(
      $8::int8,
      CASE WHEN $15::int8 IS NOT NULL THEN
        $15::int8 - COALESCE(((SELECT by_key FROM pending) ->> keys.key)::int8, 0) END,
      $16::int8 - COALESCE(($17::json ->> keys.key)::int8, 0),
      CASE WHEN $18::int8 IS NOT NULL THEN $18::int8 - (
        SELECT count(*) FROM {schema}.workflow_status
        WHERE queue_name = $1::text AND rate_limited = TRUE AND status NOT IN ('ENQUEUED', 'DELAYED')
          AND started_at_epoch_ms > (SELECT ms FROM clock) - $19::int8 AND queue_partition_key = keys.key
          AND (application_name = $6::text OR application_name IS NULL)) END) AS n
  ) AS partition_room
  CROSS JOIN LATERAL (
    SELECT workflow_uuid, ctid::text AS version, priority, created_at FROM {schema}.workflow_status
    WHERE queue_name = $1::text AND status = 'ENQUEUED' AND queue_partition_key = keys.key
      AND (application_name = $6::text OR application_name IS NULL)
      AND (application_version = $5::text OR (application_version IS NULL AND $7::boolean AND (SELECT is_mine FROM latest)))
      AND ($9::text IS NULL OR name = ANY (ARRAY(SELECT json_array_elements_text($9::json))))
    ORDER BY priority, created_at, workflow_uuid
    LIMIT GREATEST(partition_room.n, 0)
  ) AS head
  WHERE keys.key IS NOT NULL
  ORDER BY head.priority, head.created_at, head.workflow_uuid
  LIMIT (SELECT GREATEST(n, 0) FROM room)
), candidates AS MATERIALIZED (
  SELECT heads.workflow_uuid, heads.version
  FROM heads
  CROSS JOIN LATERAL (
    SELECT FROM {schema}.workflow_status
    WHERE workflow_uuid = heads.workflow_uuid AND status = 'ENQUEUED'
    FOR UPDATE SKIP LOCKED
  ) AS locked
), claimed AS (
-- include: parts/claim.sql
)
SELECT * FROM claimed
UNION ALL
-- A row of nothing: some were passed over.
SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
WHERE (SELECT count(*) FROM candidates) < (SELECT count(*) FROM heads);

-- name: find_rate_window
-- When the rate limit of queue $1 lets the next one start: the start of the $3-th last one, of application $2.
SELECT started_at_epoch_ms FROM {schema}.workflow_status
WHERE queue_name = $1::text AND rate_limited = TRUE AND status NOT IN ('ENQUEUED', 'DELAYED')
  AND (application_name = $2::text OR application_name IS NULL)
ORDER BY started_at_epoch_ms DESC
OFFSET $3::int8 - 1 LIMIT 1;

-- name: find_partition_rate_window
-- The same for the rate limit of each partition, of which $3 are allowed in $5 ms: when the first of those full at $4 lets
-- the next one start that waits. Only what was started within the period counts, so only that is read.
SELECT min(nth.ms) + $5::int8
FROM (
  SELECT queue_partition_key AS key,
         (array_agg(started_at_epoch_ms ORDER BY started_at_epoch_ms DESC))[$3::int4] AS ms
  FROM {schema}.workflow_status
  WHERE queue_name = $1::text AND rate_limited = TRUE AND status NOT IN ('ENQUEUED', 'DELAYED')
    AND started_at_epoch_ms > $4::int8 - $5::int8
    AND (application_name = $2::text OR application_name IS NULL)
  GROUP BY queue_partition_key
) AS nth
WHERE nth.ms IS NOT NULL AND EXISTS (
  SELECT FROM {schema}.workflow_status
  WHERE queue_name = $1::text AND status = 'ENQUEUED' AND queue_partition_key = nth.key);
