-- Many workflows enqueued together, all or none (`store.enqueue_workflows`): at first as if nothing could be in their
-- way, then, if something is, with a statement that passes over it.

-- name: load_workflows
-- Fails if an id or a deduplication id is in use. Runs as COPY into these columns: twice as fast as any INSERT.
INSERT INTO {schema}.workflow_status
  (workflow_uuid, creator_xid, status, name, class_name, config_name, serialization, executor_id,
   application_version, application_id, application_name, recovery_attempts, workflow_timeout_ms,
   workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, assumed_role, attributes, parent_workflow_id,
   queue_name, priority, deduplication_id, queue_partition_key, delay_until_epoch_ms, schedule_name,
   created_at, updated_at)
VALUES ($1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text, $8::text, $9::text, $10::text,
        $11::text, $12::int8, $13::int8, $14::int8, $15::text, $16::text, $17::text, $18::jsonb, $19::text, $20::text,
        $21::int4, $22::text, $23::text, $24::int8, $25::text, $26::int8, $27::int8);

-- name: load_inputs
INSERT INTO {schema}.workflow_input (workflow_uuid, inputs, retention_timestamp)
VALUES ($1::text, $2::text, $3::int8);

-- name: enqueue_workflows
-- Insert-if-absent, from an array of objects in $1 with the keys of start_workflows, and p parent, ca created at.
-- The inputs follow only the rows that were inserted. $2 is the process's clock in ms.
WITH input AS MATERIALIZED (
  SELECT * FROM json_to_recordset($1::json)
    AS r (w text, s text, n text, cn text, gn text, "in" text, z text, ct text, x text, v text, ai text,
          a text, r int8, "to" int8, dl int8, u text, ro text, ar text, at text, p text,
          q text, pr int4, dd text, pk text, du int8, sn text, ca int8)
), inputs AS MATERIALIZED (
  SELECT jsonb_object_agg(ct, "in") AS by_token FROM input
), started AS (
  INSERT INTO {schema}.workflow_status
    (workflow_uuid, status, name, class_name, config_name, serialization, creator_xid, executor_id,
     application_version, application_id, application_name, recovery_attempts, workflow_timeout_ms,
     workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, assumed_role, attributes, parent_workflow_id,
     queue_name, priority, deduplication_id, queue_partition_key, delay_until_epoch_ms, schedule_name,
     created_at, updated_at)
  SELECT w, s, n, cn, gn, z, ct, x, v, ai, a, r, "to", dl, u, ro, ar, at::jsonb, p, q, pr, dd, pk, du, sn, ca, ca
  FROM input ORDER BY w
  ON CONFLICT DO NOTHING
  RETURNING workflow_uuid, creator_xid
)
INSERT INTO {schema}.workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT workflow_uuid, (SELECT by_token FROM inputs) ->> creator_xid, $2::int8 FROM started
ON CONFLICT (workflow_uuid) DO NOTHING;

-- name: find_starts
-- The rows of the workflows in $1 (a JSON array of ids), as find_start.
SELECT workflow_uuid, status, name, class_name, config_name, queue_name, serialization, creator_xid
FROM {schema}.workflow_status WHERE workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text($1::json)));

-- name: find_newest_waiting
-- The latest creation time of what waits or runs in each of the partitions $2 (a JSON array of keys) of queue $1.
SELECT k.key, w.created_at
FROM json_array_elements_text($2::json) AS k (key)
CROSS JOIN LATERAL (
  SELECT max(created_at) AS created_at FROM {schema}.workflow_status
  WHERE queue_name = $1::text AND status IN ('ENQUEUED', 'PENDING') AND queue_partition_key = k.key
) AS w
WHERE w.created_at IS NOT NULL;

-- name: transaction_time
-- The start of the transaction in ms, as the default of created_at has it.
SELECT (EXTRACT(epoch FROM now()) * 1000.0)::bigint;
