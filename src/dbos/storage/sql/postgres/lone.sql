-- Batches of one record, the usual case of a workflow that runs alone. The same statements as record_steps,
-- start_workflows and finish_workflows, with the fields of the record as parameters, in the order of its keys, and
-- the process's clock last: taking one record out of JSON would cost more than everything else in the statement.

-- name: record_step
WITH owned AS MATERIALIZED (
  SELECT owner_xid FROM {schema}.workflow_status WHERE workflow_uuid = $1::text FOR NO KEY UPDATE
)
INSERT INTO {schema}.operation_outputs
  (workflow_uuid, function_id, function_name, output, error, serialization, started_at_epoch_ms,
   completed_at_epoch_ms, application_name, child_workflow_id, retention_timestamp)
SELECT $1::text, $3::int4, $4::text, $5::text, $6::text, $7::text, $8::int8, $9::int8, $10::text, $11::text, $12::int8
FROM owned WHERE owner_xid = $2::text
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;

-- name: start_workflow
WITH started AS (
  INSERT INTO {schema}.workflow_status
    (workflow_uuid, status, name, class_name, config_name, serialization, creator_xid, owner_xid, executor_id,
     application_version, application_id, application_name, recovery_attempts, workflow_timeout_ms,
     workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, assumed_role, attributes)
  VALUES ($1::text, $2::text, $3::text, $4::text, $5::text, $7::text, $8::text, $9::text, $10::text,
          $11::text, $12::text, $13::text, $14::int8, $15::int8, $16::int8, $17::text, $18::text, $19::text,
          $20::jsonb)
  ON CONFLICT (workflow_uuid) DO NOTHING
  RETURNING workflow_uuid
)
INSERT INTO {schema}.workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT workflow_uuid, $6::text, $21::int8 FROM started
ON CONFLICT (workflow_uuid) DO NOTHING;

-- name: enqueue_workflow
WITH started AS (
  INSERT INTO {schema}.workflow_status
    (workflow_uuid, status, name, class_name, config_name, serialization, creator_xid, owner_xid, executor_id,
     application_version, application_id, application_name, recovery_attempts, workflow_timeout_ms,
     workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, assumed_role, attributes,
     queue_name, priority, deduplication_id,
     queue_partition_key, delay_until_epoch_ms, schedule_name, is_debounced, debounce_deadline_epoch_ms)
  VALUES ($1::text, $2::text, $3::text, $4::text, $5::text, $7::text, $8::text, $9::text, $10::text,
          $11::text, $12::text, $13::text, $14::int8, $15::int8, $16::int8, $17::text, $18::text, $19::text,
          $20::jsonb, $21::text, $22::int4, $23::text, $24::text, $25::int8, $26::text, $27::boolean, $28::int8)
  ON CONFLICT DO NOTHING
  RETURNING workflow_uuid
)
INSERT INTO {schema}.workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT workflow_uuid, $6::text, $29::int8 FROM started
ON CONFLICT (workflow_uuid) DO NOTHING;

-- name: finish_workflow
WITH finished AS (
  UPDATE {schema}.workflow_status
  SET status = $3::text, owner_xid = NULL, deduplication_id = NULL,
      updated_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
      completed_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint
  -- An expression, so that the partial index on PENDING cannot look cheaper than the primary key.
  WHERE workflow_uuid = $1::text AND owner_xid = $2::text AND status || '' = 'PENDING'
  RETURNING workflow_uuid
)
INSERT INTO {schema}.workflow_output (workflow_uuid, output, error, retention_timestamp)
SELECT workflow_uuid, $4::text, $5::text, $6::int8 FROM finished
ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output, error = excluded.error;
