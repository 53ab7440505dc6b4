UPDATE workflow_status
SET status = 'PENDING', owner_xid = ?3, executor_id = ?4, application_version = ?5, application_name = ?6,
    started_at_epoch_ms = (SELECT ms FROM clock), updated_at = (SELECT ms FROM clock),
    recovery_attempts = COALESCE(recovery_attempts, 0) + 1, rate_limited = ?13,
    -- Who never had a queue has none again when it runs. Not while a deduplication id is held, which needs the queue.
    queue_name = CASE WHEN queue_name <> '_dbos_internal_queue' OR deduplication_id IS NOT NULL THEN queue_name END,
    workflow_deadline_epoch_ms = COALESCE(
      workflow_deadline_epoch_ms,
      CASE WHEN workflow_timeout_ms > 9223372036854775807 - ?2 THEN 9223372036854775807
           ELSE ?2 + workflow_timeout_ms END)
WHERE workflow_uuid IN (SELECT workflow_uuid FROM candidates)
RETURNING workflow_uuid, status, name, class_name, config_name, owner_xid,
  COALESCE((SELECT i.inputs FROM workflow_input AS i WHERE i.workflow_uuid = workflow_status.workflow_uuid), inputs),
  serialization, recovery_attempts, workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, attributes,
  ?1, queue_partition_key, priority, created_at,
  EXISTS (SELECT 1 FROM operation_outputs AS o WHERE o.workflow_uuid = workflow_status.workflow_uuid);
