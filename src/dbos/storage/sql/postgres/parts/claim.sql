UPDATE {schema}.workflow_status AS w
SET status = 'PENDING', owner_xid = $3::text, executor_id = $4::text, application_version = $5::text,
    application_name = $6::text, started_at_epoch_ms = (SELECT ms FROM clock), updated_at = (SELECT ms FROM clock),
    recovery_attempts = COALESCE(recovery_attempts, 0) + 1, rate_limited = $13::boolean,
    -- Who never had a queue has none again when it runs. Not while a deduplication id is held, which needs the queue.
    queue_name = CASE WHEN queue_name <> '_dbos_internal_queue' OR deduplication_id IS NOT NULL THEN queue_name END,
    workflow_deadline_epoch_ms = COALESCE(
      workflow_deadline_epoch_ms,
      CASE WHEN workflow_timeout_ms > 9223372036854775807 - $2::int8 THEN 9223372036854775807
           ELSE $2::int8 + workflow_timeout_ms END)
FROM candidates
-- Only in the version that was looked at: of a later one the steps might not be in sight yet. Who made it says so.
WHERE w.workflow_uuid = candidates.workflow_uuid AND w.ctid::text = candidates.version AND w.status = 'ENQUEUED'
RETURNING w.workflow_uuid, w.status, w.name, w.class_name, w.config_name, w.owner_xid,
  COALESCE((SELECT i.inputs FROM {schema}.workflow_input AS i WHERE i.workflow_uuid = w.workflow_uuid), w.inputs),
  w.serialization, w.recovery_attempts, w.workflow_deadline_epoch_ms, w.authenticated_user,
  w.authenticated_roles, w.attributes::text, $1::text, w.queue_partition_key, w.priority, w.created_at,
  EXISTS (SELECT FROM {schema}.operation_outputs AS o WHERE o.workflow_uuid = w.workflow_uuid)::int4
