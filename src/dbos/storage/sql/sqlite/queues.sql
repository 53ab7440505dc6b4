-- Queues: their configuration, and claims within their limits.

-- Parameters of a configuration: ?1 name, ?2 application, ?3 global concurrency, ?4 worker concurrency, ?5 and ?6 rate
-- limit and its period, ?7 partition concurrency, ?8 partition worker concurrency, ?9 and ?10 partition rate limit and
-- its period, ?11 polling interval, ?12 partitioned, ?13 now.

-- name: register_queue
-- Insert, or overwrite when ?14 and nobody else owns the queue. A queue without owner gets the registrar.
INSERT INTO queues AS known
  (name, application_name, concurrency, worker_concurrency, rate_limit_max, rate_limit_period_sec, partition_concurrency,
   partition_worker_concurrency, partition_rate_limit_max, partition_rate_limit_period_sec, polling_interval_sec,
   partition_queue, created_at, updated_at, priority_enabled)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10,
        ?11, ?12, ?13, ?13, TRUE)
ON CONFLICT (name) DO UPDATE
SET application_name = COALESCE(known.application_name, excluded.application_name),
    concurrency = excluded.concurrency, worker_concurrency = excluded.worker_concurrency,
    rate_limit_max = excluded.rate_limit_max, rate_limit_period_sec = excluded.rate_limit_period_sec,
    partition_concurrency = excluded.partition_concurrency,
    partition_worker_concurrency = excluded.partition_worker_concurrency,
    partition_rate_limit_max = excluded.partition_rate_limit_max,
    partition_rate_limit_period_sec = excluded.partition_rate_limit_period_sec,
    polling_interval_sec = excluded.polling_interval_sec, partition_queue = excluded.partition_queue,
    updated_at = max(excluded.updated_at, known.updated_at + 1), priority_enabled = TRUE
WHERE ?14 AND (known.application_name IS NULL OR excluded.application_name IS NULL
                        OR known.application_name = excluded.application_name);

-- name: update_queue
-- Change a configuration that is still the one that was read (?14, its updated_at).
UPDATE queues
SET application_name = COALESCE(application_name, ?2), concurrency = ?3, worker_concurrency = ?4,
    rate_limit_max = ?5, rate_limit_period_sec = ?6, partition_concurrency = ?7,
    partition_worker_concurrency = ?8, partition_rate_limit_max = ?9,
    partition_rate_limit_period_sec = ?10, polling_interval_sec = ?11, partition_queue = ?12,
    updated_at = max(?13, updated_at + 1)
WHERE name = ?1 AND updated_at = ?14
RETURNING name;

-- name: find_queue
SELECT name, application_name, concurrency, worker_concurrency, rate_limit_max, rate_limit_period_sec, partition_concurrency,
       partition_worker_concurrency, partition_rate_limit_max, partition_rate_limit_period_sec, polling_interval_sec,
       updated_at
FROM queues WHERE name = ?1;

-- name: list_queues
-- Of the applications in ?1 (a JSON array) and of none; of all applications when ?1 is NULL.
SELECT name, application_name, concurrency, worker_concurrency, rate_limit_max, rate_limit_period_sec, partition_concurrency,
       partition_worker_concurrency, partition_rate_limit_max, partition_rate_limit_period_sec, polling_interval_sec,
       updated_at
FROM queues
WHERE ?1 IS NULL OR application_name IS NULL
   OR application_name IN (SELECT value FROM json_each(?1))
ORDER BY name;

-- name: delete_queue
-- Whoever owns it.
DELETE FROM queues WHERE name = ?1;

-- name: has_waiting
-- Whether something waits or is delayed on queue ?1.
SELECT EXISTS (SELECT 1 FROM workflow_status WHERE queue_name = ?1 AND status = 'ENQUEUED' AND status IN ('ENQUEUED', 'PENDING'))
    OR EXISTS (SELECT 1 FROM workflow_status WHERE status = 'DELAYED' AND queue_name = ?1);

-- name: find_holder
-- Who holds deduplication id ?2 of queue ?1.
SELECT workflow_uuid FROM workflow_status WHERE queue_name = ?1 AND deduplication_id = ?2;

-- name: find_waiting_queues
-- Which of the queues in ?1 (a JSON array of names) have something waiting for application ?2 that a process of version
-- ?3, which is the latest or not (?4), can run: with one of the functions in ?5 (a JSON array), or on queue ?6.
SELECT q.value
FROM json_each(?1) AS q
WHERE EXISTS (
  SELECT 1 FROM workflow_status
  WHERE queue_name = q.value AND status = 'ENQUEUED' AND status IN ('ENQUEUED', 'PENDING')
    AND (application_name = ?2 OR application_name IS NULL)
    AND (application_version = ?3 OR (application_version IS NULL AND ?4))
    AND (q.value = ?6 OR name IN (SELECT value FROM json_each(?5))));

-- name: promote_delayed
-- Make the delayed workflows of application ?1 that are due at ?2 ENQUEUED; the queues they wait on.
UPDATE workflow_status
SET status = 'ENQUEUED', deduplication_id = CASE WHEN is_debounced THEN NULL ELSE deduplication_id END
WHERE workflow_uuid IN (
  SELECT workflow_uuid FROM workflow_status
  WHERE status = 'DELAYED' AND delay_until_epoch_ms <= ?2
    AND (application_name = ?1 OR application_name IS NULL)
  ORDER BY delay_until_epoch_ms
  LIMIT 1000)
RETURNING queue_name;

-- name: find_next_delayed
SELECT min(delay_until_epoch_ms) FROM workflow_status
WHERE status = 'DELAYED' AND (application_name = ?1 OR application_name IS NULL);

-- name: set_workflow_delay
UPDATE workflow_status
SET delay_until_epoch_ms = ?2, updated_at = ?3
WHERE workflow_uuid = ?1 AND status = 'DELAYED'
RETURNING workflow_uuid;

-- Parameters of a claim: ?1 queue, ?2 now, ?3 token of this claim, ?4 executor, ?5 version, ?6 application, ?7 whether
-- the version is the latest, as far as the claimer knows (takes rows without a version), ?8 how many at most, ?9 names of the functions that are
-- registered here (a JSON array; NULL is any), ?10 global concurrency, ?11 and ?12 rate limit and its period in ms, ?13 whether
-- the queue has a rate limit of either kind, ?14 when its configuration was last changed, as far as the claimer knows (NULL
-- is a queue without a row). The last parameter is the
-- time when the write lock was taken, which makes counts exact: nothing else changes meanwhile.

-- name: claim_workflows
-- Take waiting workflows for this executor, and give back all that running them needs.
WITH clock (ms) AS (
  SELECT ?15
),
-- include: parts/room.sql
), candidates AS MATERIALIZED (
  SELECT workflow_uuid FROM workflow_status
  WHERE queue_name = ?1 AND status = 'ENQUEUED' AND status IN ('ENQUEUED', 'PENDING')
    AND (application_name = ?6 OR application_name IS NULL)
    AND (application_version = ?5 OR (application_version IS NULL AND ?7 AND (SELECT is_mine FROM latest)))
    AND (?9 IS NULL OR name IN (SELECT value FROM json_each(?9))
         -- What this executor itself has recovered is claimed in any case, and reported if its function is missing.
         OR (?1 = '_dbos_internal_queue' AND executor_id = ?4))
  ORDER BY priority, created_at, workflow_uuid
  LIMIT max(0, (SELECT n FROM room))
)
-- include: parts/claim.sql

-- name: claim_partitions
-- The same for a partitioned queue, all partitions in one statement: of each up to what its limits leave, the longest
-- waiting first over all. ?15 partition concurrency, ?16 partition worker concurrency, ?17 what runs here of each
-- partition (a JSON object), ?18 and ?19 partition rate limit and its period in ms. The keys are found by going from
-- one to the next in the index. A partition that runs one at a time, on a queue with no other shared limit, does so over all
-- applications.
WITH RECURSIVE clock (ms) AS (
  SELECT ?20
),
-- include: parts/room.sql
), keys (key) AS (
  SELECT (SELECT queue_partition_key FROM workflow_status
          WHERE queue_name = ?1 AND status = 'ENQUEUED' AND status IN ('ENQUEUED', 'PENDING')
            AND queue_partition_key IS NOT NULL
          ORDER BY queue_partition_key LIMIT 1)
  UNION ALL
  SELECT (SELECT queue_partition_key FROM workflow_status
          WHERE queue_name = ?1 AND status = 'ENQUEUED' AND status IN ('ENQUEUED', 'PENDING')
            AND queue_partition_key IS NOT NULL AND queue_partition_key > keys.key
          ORDER BY queue_partition_key LIMIT 1)
  FROM keys WHERE keys.key IS NOT NULL
), running (key, n) AS MATERIALIZED (
  SELECT key, value FROM json_each(?17)
), partition_room (key, n) AS MATERIALIZED (
  SELECT keys.key, min(
    ?8,
    CASE WHEN ?15 IS NULL THEN ?8 ELSE ?15 - (
      SELECT count(*) FROM workflow_status
      WHERE queue_name = ?1 AND status = 'PENDING' AND status IN ('ENQUEUED', 'PENDING')
        AND queue_partition_key = keys.key AND queue_partition_key IS NOT NULL
        AND (application_name = ?6 OR application_name IS NULL
             OR (?15 = 1 AND ?10 IS NULL AND ?11 IS NULL AND ?18 IS NULL))) END,
    CASE WHEN ?16 IS NULL THEN ?8 ELSE
      ?16 - COALESCE((SELECT running.n FROM running WHERE running.key = keys.key), 0) END,
    CASE WHEN ?18 IS NULL THEN ?8 ELSE ?18 - (
      SELECT count(*) FROM workflow_status
      WHERE queue_name = ?1 AND rate_limited = TRUE AND status NOT IN ('ENQUEUED', 'DELAYED')
        AND started_at_epoch_ms > (SELECT ms FROM clock) - ?19 AND queue_partition_key = keys.key
        AND (application_name = ?6 OR application_name IS NULL)) END)
  FROM keys WHERE keys.key IS NOT NULL
), candidates AS MATERIALIZED (
  -- A list of heads per partition as JSON: a subquery that depends on the row beside it is not possible here.
  SELECT json_extract(head.value, '$[2]') AS workflow_uuid
  FROM partition_room, json_each((
    SELECT json_group_array(json_array(priority, created_at, workflow_uuid)) FROM (
      SELECT priority, created_at, workflow_uuid FROM workflow_status
      WHERE queue_name = ?1 AND status = 'ENQUEUED' AND status IN ('ENQUEUED', 'PENDING')
        AND queue_partition_key = partition_room.key AND queue_partition_key IS NOT NULL
        AND (application_name = ?6 OR application_name IS NULL)
        AND (application_version = ?5 OR (application_version IS NULL AND ?7 AND (SELECT is_mine FROM latest)))
        AND (?9 IS NULL OR name IN (SELECT value FROM json_each(?9)))
      ORDER BY priority, created_at, workflow_uuid
      LIMIT min(?8, COALESCE(?15, ?8), COALESCE(?16, ?8), COALESCE(?18, ?8))))) AS head
  WHERE partition_room.n > 0 AND head.key < partition_room.n
  ORDER BY json_extract(head.value, '$[0]'), json_extract(head.value, '$[1]'), json_extract(head.value, '$[2]')
  LIMIT max(0, (SELECT n FROM room))
)
-- include: parts/claim.sql

-- name: find_rate_window
-- When the rate limit of queue ?1 lets the next one start: the start of the ?3-th last one, of application ?2.
SELECT started_at_epoch_ms FROM workflow_status
WHERE queue_name = ?1 AND rate_limited = TRUE AND status NOT IN ('ENQUEUED', 'DELAYED')
  AND (application_name = ?2 OR application_name IS NULL)
ORDER BY started_at_epoch_ms DESC
LIMIT 1 OFFSET ?3 - 1;

-- name: find_partition_rate_window
-- The same for the rate limit of each partition, of which ?3 are allowed in ?5 ms: when the first of those full at ?4 lets
-- the next one start that waits. Only what was started within the period counts, so only that is read.
SELECT min(nth.ms) + ?5
FROM (
  SELECT queue_partition_key AS key, started_at_epoch_ms AS ms,
         row_number() OVER (PARTITION BY queue_partition_key ORDER BY started_at_epoch_ms DESC) AS number
  FROM workflow_status
  WHERE queue_name = ?1 AND rate_limited = TRUE AND status NOT IN ('ENQUEUED', 'DELAYED')
    AND started_at_epoch_ms > ?4 - ?5
    AND (application_name = ?2 OR application_name IS NULL)
) AS nth
WHERE nth.number = ?3 AND EXISTS (
  SELECT 1 FROM workflow_status
  WHERE queue_name = ?1 AND status = 'ENQUEUED' AND status IN ('ENQUEUED', 'PENDING')
    AND queue_partition_key = nth.key AND queue_partition_key IS NOT NULL);
