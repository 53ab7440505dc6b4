-- Workflows: status, inputs, outcome. Keys of a start in $1: w workflow, s status, n name, cn class, gn configured
-- instance, in inputs, z serialization, ct creator token, ot owner token, x executor, v version, ai application id,
-- a application, r recovery attempts, to timeout, dl deadline, u user, ro roles, ar assumed role, at attributes;
-- of a child start also p parent, pt its owner token, i step id, b began, f finished, rj reject an existing one.
-- of a workflow that waits on a queue also q queue, pr priority, dd deduplication id, pk partition key, du delayed
-- until, sn schedule, db debounced, de debounce deadline.
-- $2 is the process's clock in ms; status times of this table come from the database clock.

-- Plans must not depend on how large the planner believes a table to be, since it may have been empty a moment ago.
-- So rows are found by primary key (LATERAL, = ANY), and what belongs to them comes from a jsonb object by key: a join
-- of two lists of a batch would compare each with each.

-- name: start_workflows
-- Insert-if-absent. The inputs follow only the row whose creator token is ours, so a refused start leaves no input
-- and a repeated one finds its own row.
WITH input AS MATERIALIZED (
  SELECT * FROM json_to_recordset($1::json)
    AS r (w text, s text, n text, cn text, gn text, "in" text, z text, ct text, ot text, x text, v text, ai text,
          a text, r int8, "to" int8, dl int8, u text, ro text, ar text, at text,
          q text, pr int4, dd text, pk text, du int8, sn text, db boolean, de int8)
), inputs AS MATERIALIZED (
  SELECT jsonb_object_agg(ct, "in") AS by_token FROM input
), started AS (
  INSERT INTO {schema}.workflow_status
    (workflow_uuid, status, name, class_name, config_name, serialization, creator_xid, owner_xid, executor_id,
     application_version, application_id, application_name, recovery_attempts, workflow_timeout_ms,
     workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, assumed_role, attributes,
     queue_name, priority, deduplication_id,
     queue_partition_key, delay_until_epoch_ms, schedule_name, is_debounced, debounce_deadline_epoch_ms)
  SELECT w, s, n, cn, gn, z, ct, ot, x, v, ai, a, r, "to", dl, u, ro, ar, at::jsonb,
         q, COALESCE(pr, 0), dd, pk, du, sn, COALESCE(db, FALSE), de
  FROM input ORDER BY w
  ON CONFLICT DO NOTHING
  RETURNING workflow_uuid, creator_xid
)
INSERT INTO {schema}.workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT workflow_uuid, (SELECT by_token FROM inputs) ->> creator_xid, $2::int8 FROM started
ON CONFLICT (workflow_uuid) DO NOTHING;

-- name: start_children
-- As start_workflows, but only while the parent is still owned by the execution that starts the child, and at a step
-- id that is free; the lock on the parent holds until record_child_starts has committed with it.
WITH input AS MATERIALIZED (
  SELECT * FROM json_to_recordset($1::json)
    AS r (w text, s text, n text, cn text, gn text, "in" text, z text, ct text, ot text, x text, v text, ai text,
          a text, r int8, "to" int8, dl int8, u text, ro text, ar text, at text, p text, pt text, i int4,
          q text, pr int4, dd text, pk text, du int8, sn text, db boolean, de int8)
  ORDER BY p, w
), inputs AS MATERIALIZED (
  SELECT jsonb_object_agg(ct, "in") AS by_token FROM input
), started AS (
  INSERT INTO {schema}.workflow_status
    (workflow_uuid, status, name, class_name, config_name, serialization, creator_xid, owner_xid, executor_id,
     application_version, application_id, application_name, recovery_attempts, workflow_timeout_ms,
     workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, assumed_role, attributes,
     parent_workflow_id, queue_name, priority, deduplication_id,
     queue_partition_key, delay_until_epoch_ms, schedule_name, is_debounced, debounce_deadline_epoch_ms)
  SELECT w, s, n, cn, gn, z, ct, ot, x, v, ai, a, r, "to", dl, u, ro, ar, at::jsonb, p,
         q, COALESCE(pr, 0), dd, pk, du, sn, COALESCE(db, FALSE), de
  FROM input
  CROSS JOIN LATERAL (
    SELECT owner_xid FROM {schema}.workflow_status WHERE workflow_uuid = input.p FOR NO KEY UPDATE
  ) AS owned
  WHERE owned.owner_xid = input.pt AND NOT EXISTS (
    SELECT FROM {schema}.operation_outputs WHERE workflow_uuid = input.p AND function_id = input.i OFFSET 0
  )
  ON CONFLICT DO NOTHING
  RETURNING workflow_uuid, creator_xid
)
INSERT INTO {schema}.workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT workflow_uuid, (SELECT by_token FROM inputs) ->> creator_xid, $2::int8 FROM started
ON CONFLICT (workflow_uuid) DO NOTHING;

-- name: record_child_starts
-- The parent's step row, in the transaction of start_children: written when the child is ours, or when an existing
-- workflow of the same function may be attached to.
INSERT INTO {schema}.operation_outputs
  (workflow_uuid, function_id, function_name, child_workflow_id,
   started_at_epoch_ms, completed_at_epoch_ms, application_name, retention_timestamp)
SELECT r.p, r.i, r.n, r.w, r.b, r.f, r.a, $2::int8
FROM json_to_recordset($1::json)
  AS r (w text, n text, cn text, gn text, ct text, a text, p text, pt text, i int4, b int8, f int8, rj boolean)
CROSS JOIN LATERAL (
  SELECT owner_xid FROM {schema}.workflow_status WHERE workflow_uuid = r.p OFFSET 0
) AS parent
CROSS JOIN LATERAL (
  SELECT name, class_name, config_name, creator_xid FROM {schema}.workflow_status WHERE workflow_uuid = r.w OFFSET 0
) AS child
WHERE parent.owner_xid = r.pt
  AND child.name IS NOT DISTINCT FROM r.n AND child.class_name IS NOT DISTINCT FROM r.cn
  AND child.config_name IS NOT DISTINCT FROM r.gn
  AND (child.creator_xid = r.ct OR NOT r.rj)
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;

-- name: find_start
-- The row a start met.
SELECT status, name, class_name, config_name, queue_name, serialization, creator_xid
FROM {schema}.workflow_status WHERE workflow_uuid = $1::text;

-- name: finish_workflows
-- The outcome, only while the row is PENDING and owned by this execution; locked in id order, so that nothing changes
-- between the look and the update.
WITH owned AS MATERIALIZED (
  SELECT w, s, o, e
  FROM (
    SELECT * FROM json_to_recordset($1::json) AS r (w text, t text, s text, o text, e text) ORDER BY w
  ) AS input
  CROSS JOIN LATERAL (
    SELECT owner_xid, status FROM {schema}.workflow_status WHERE workflow_uuid = input.w FOR NO KEY UPDATE
  ) AS locked
  -- An expression, so that the partial index on PENDING cannot look cheaper than the primary key.
  WHERE locked.owner_xid = input.t AND locked.status || '' = 'PENDING'
), finished AS (
  UPDATE {schema}.workflow_status
  SET status = (SELECT jsonb_object_agg(w, s) FROM owned) ->> workflow_uuid,
      owner_xid = NULL, deduplication_id = NULL,
      updated_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
      completed_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint
  WHERE workflow_uuid = ANY (ARRAY(SELECT w FROM owned))
)
INSERT INTO {schema}.workflow_output (workflow_uuid, output, error, retention_timestamp)
SELECT w, o, e, $2::int8 FROM owned
ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output, error = excluded.error;

-- name: find_outcomes
-- Status and payloads of the workflows in $1 (a JSON array of ids).
SELECT w.workflow_uuid, w.status, COALESCE(o.output, w.output), COALESCE(o.error, w.error), w.serialization
FROM {schema}.workflow_status AS w
LEFT JOIN {schema}.workflow_output AS o ON o.workflow_uuid = w.workflow_uuid
WHERE w.workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text($1::json)));

-- name: find_final
-- Which of the workflows in $1 (a JSON array of ids) have ended.
SELECT workflow_uuid FROM {schema}.workflow_status
WHERE workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text($1::json)))
  AND status NOT IN ('PENDING', 'ENQUEUED', 'DELAYED');

-- name: get_workflow
SELECT w.workflow_uuid, w.status, w.name, w.class_name, w.config_name, w.authenticated_user, w.assumed_role,
       w.authenticated_roles, COALESCE(i.inputs, w.inputs), COALESCE(o.output, w.output),
       COALESCE(o.error, w.error), w.created_at, w.updated_at, w.queue_name, w.executor_id,
       w.application_version, w.workflow_timeout_ms, w.workflow_deadline_epoch_ms, w.deduplication_id, w.priority,
       w.queue_partition_key, w.forked_from, w.was_forked_from, w.parent_workflow_id, w.started_at_epoch_ms,
       w.delay_until_epoch_ms, w.completed_at, w.attributes::text, w.schedule_name, w.application_name,
       w.recovery_attempts, w.application_id, w.serialization
FROM {schema}.workflow_status AS w
LEFT JOIN {schema}.workflow_input AS i ON i.workflow_uuid = w.workflow_uuid
LEFT JOIN {schema}.workflow_output AS o ON o.workflow_uuid = w.workflow_uuid
WHERE w.workflow_uuid = $1::text;

-- name: requeue_pending
-- Recovery: hand the PENDING workflows of one executor ($3) and version ($4) of the application ($5) back to their
-- queue, or to the internal one ($1). Only rows still PENDING change, so asking twice is harmless. With $6 (a JSON array
-- of processes that are gone) those that another process of ours owns stay with it; of any other owner nothing is known.
UPDATE {schema}.workflow_status
SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL,
    queue_name = COALESCE(queue_name, $1::text), updated_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint
WHERE status = 'PENDING' AND executor_id = $3::text AND application_version = $4::text
  AND (application_name = $5::text OR application_name IS NULL) AND $2::int8 IS NOT NULL
  AND ($6::text IS NULL OR owner_xid IS NULL OR owner_xid NOT LIKE '________-____-8___-____-____________'
       OR left(owner_xid, 18) = ANY (ARRAY(SELECT json_array_elements_text($6::json))))
RETURNING workflow_uuid;

-- name: find_claimed
-- The workflows that the claim with token $1 took: asked only when the answer to a claim was lost.
SELECT w.workflow_uuid, w.status, w.name, w.class_name, w.config_name, w.owner_xid,
  COALESCE((SELECT i.inputs FROM {schema}.workflow_input AS i WHERE i.workflow_uuid = w.workflow_uuid), w.inputs),
  w.serialization, w.recovery_attempts, w.workflow_deadline_epoch_ms, w.authenticated_user,
  w.authenticated_roles, w.attributes::text, COALESCE(w.queue_name, '_dbos_internal_queue'), w.queue_partition_key, w.priority, w.created_at,
  EXISTS (SELECT FROM {schema}.operation_outputs AS o WHERE o.workflow_uuid = w.workflow_uuid)::int4
FROM {schema}.workflow_status AS w WHERE w.status = 'PENDING' AND w.owner_xid = $1::text;

-- name: count_waiting_elsewhere
-- Waiting work of this application that this version will not take: PENDING of this executor or ENQUEUED.
SELECT application_version, status, COUNT(*)
FROM {schema}.workflow_status
WHERE status IN ('ENQUEUED', 'PENDING') AND (application_name = $1::text OR application_name IS NULL)
  AND application_version <> $2::text AND (status = 'ENQUEUED' OR executor_id = $3::text)
GROUP BY application_version, status;

-- name: dead_letter
-- Give a workflow up whose attempts are used; only the claim ($2) that counted them may.
UPDATE {schema}.workflow_status
SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED',
-- include: parts/leave_queue.sql
    updated_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
    completed_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint
WHERE workflow_uuid = $1::text AND status = 'PENDING' AND owner_xid = $2::text AND $3::int8 IS NOT NULL;

-- name: cancel_workflows
-- Cancel the workflows in $1 (a JSON array of ids) that have neither succeeded nor failed; locked in id order.
WITH chosen AS MATERIALIZED (
  SELECT workflow_uuid FROM {schema}.workflow_status
  WHERE workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text($1::json)))
    AND status NOT IN ('SUCCESS', 'ERROR')
  ORDER BY workflow_uuid
  FOR NO KEY UPDATE
)
UPDATE {schema}.workflow_status AS w
SET status = 'CANCELLED',
-- include: parts/leave_queue.sql
    updated_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
    completed_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint
FROM chosen
WHERE w.workflow_uuid = chosen.workflow_uuid AND $2::int8 IS NOT NULL;

-- name: find_children
SELECT workflow_uuid FROM {schema}.workflow_status
WHERE parent_workflow_id = ANY (ARRAY(SELECT json_array_elements_text($1::json)));

-- name: cancel_overdue
-- Cancel up to 1,000 active workflows of the application ($1) whose deadline is before $2, earliest first.
UPDATE {schema}.workflow_status
SET status = 'CANCELLED',
-- include: parts/leave_queue.sql
    updated_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
    completed_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint
WHERE workflow_uuid IN (
  SELECT workflow_uuid FROM {schema}.workflow_status
  WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED') AND workflow_deadline_epoch_ms IS NOT NULL
    AND workflow_deadline_epoch_ms <= $2::int8
    AND (application_name = $1::text OR application_name IS NULL)
  ORDER BY workflow_deadline_epoch_ms
  LIMIT 1000
  FOR UPDATE SKIP LOCKED)
RETURNING workflow_uuid;

-- name: find_cancelled
-- Which of the workflows in $1 (a JSON array of ids) are cancelled.
SELECT workflow_uuid FROM {schema}.workflow_status
WHERE workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text($1::json))) AND status = 'CANCELLED';

-- name: find_existing
SELECT workflow_uuid FROM {schema}.workflow_status
WHERE workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text($1::json)));

-- name: resume_workflows
-- Put the workflows in $1 (a JSON array of ids) that have neither succeeded nor failed onto queue $3. Without one, those
-- that were cancelled or given up go back to the queue they were on (see parts/leave_queue.sql), all others to the
-- internal queue $4. The note of that queue stays, so that doing it again comes to the same.
WITH chosen AS MATERIALIZED (
  SELECT workflow_uuid FROM {schema}.workflow_status
  WHERE workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text($1::json)))
    AND status NOT IN ('SUCCESS', 'ERROR')
  ORDER BY workflow_uuid
  FOR NO KEY UPDATE
)
UPDATE {schema}.workflow_status AS w
SET status = 'ENQUEUED', recovery_attempts = 0, owner_xid = NULL,
    queue_name = COALESCE(
      $3::text, CASE WHEN request LIKE '{"dbos.queue":%' THEN request::json ->> 'dbos.queue' END, $4::text),
    request = CASE WHEN $3::text IS NOT NULL AND request LIKE '{"dbos.queue":%' THEN NULL ELSE request END,
    workflow_deadline_epoch_ms = NULL, deduplication_id = NULL, started_at_epoch_ms = NULL,
    completed_at = NULL, updated_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint
FROM chosen
WHERE w.workflow_uuid = chosen.workflow_uuid AND $2::int8 IS NOT NULL
RETURNING w.queue_name;
