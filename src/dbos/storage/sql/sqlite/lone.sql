-- Batches of one record, the usual case of a workflow that runs alone. The same statements as record_steps,
-- start_workflows and finish_workflows, with the fields of the record as parameters, in the order of its keys, and
-- the process's clock last: half of the work of a lone statement would be taking its record out of JSON.

-- name: record_step
INSERT INTO operation_outputs
  (workflow_uuid, function_id, function_name, output, error, serialization, started_at_epoch_ms,
   completed_at_epoch_ms, application_name, child_workflow_id, retention_timestamp)
SELECT workflow_uuid, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12
FROM workflow_status
WHERE workflow_uuid = ?1 AND owner_xid = ?2
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;

-- name: start_workflow
INSERT INTO workflow_status
  (workflow_uuid, status, name, class_name, config_name, serialization, creator_xid, owner_xid, executor_id,
   application_version, application_id, application_name, recovery_attempts, workflow_timeout_ms,
   workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, assumed_role, attributes,
   created_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?21)
ON CONFLICT (workflow_uuid) DO NOTHING;
INSERT INTO workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT workflow_uuid, ?6, ?21
FROM workflow_status
WHERE workflow_uuid = ?1 AND creator_xid = ?8
ON CONFLICT (workflow_uuid) DO NOTHING;

-- name: enqueue_workflow
INSERT INTO workflow_status
  (workflow_uuid, status, name, class_name, config_name, serialization, creator_xid, owner_xid, executor_id,
   application_version, application_id, application_name, recovery_attempts, workflow_timeout_ms,
   workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, assumed_role, attributes,
   queue_name, priority, deduplication_id, queue_partition_key,
   delay_until_epoch_ms, schedule_name, is_debounced, debounce_deadline_epoch_ms, created_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24,
        ?25, ?26, ?27, ?28, ?29, ?29)
ON CONFLICT DO NOTHING;
INSERT INTO workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT workflow_uuid, ?6, ?29
FROM workflow_status
WHERE workflow_uuid = ?1 AND creator_xid = ?8
ON CONFLICT (workflow_uuid) DO NOTHING;

-- name: finish_workflow
INSERT INTO workflow_output (workflow_uuid, output, error, retention_timestamp)
SELECT workflow_uuid, ?4, ?5, ?6
FROM workflow_status
WHERE workflow_uuid = ?1 AND owner_xid = ?2 AND status = 'PENDING'
ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output, error = excluded.error;
UPDATE workflow_status
SET status = ?3, owner_xid = NULL, deduplication_id = NULL, updated_at = ?6, completed_at = ?6
WHERE workflow_uuid = ?1 AND owner_xid = ?2 AND status = 'PENDING';
