SELECT w.workflow_uuid, w.status, w.name, w.class_name, w.config_name, w.authenticated_user, w.assumed_role,
       w.authenticated_roles,
       COALESCE((SELECT i.inputs FROM workflow_input AS i WHERE i.workflow_uuid = w.workflow_uuid), w.inputs), -- if load_input
       NULL, -- unless load_input
       COALESCE((SELECT o.output FROM workflow_output AS o WHERE o.workflow_uuid = w.workflow_uuid), w.output), -- if load_output
       COALESCE((SELECT o.error FROM workflow_output AS o WHERE o.workflow_uuid = w.workflow_uuid), w.error), -- if load_output
       NULL, NULL, -- unless load_output
       w.created_at, w.updated_at, w.queue_name, w.executor_id, w.application_version, w.workflow_timeout_ms,
       w.workflow_deadline_epoch_ms, w.deduplication_id, w.priority, w.queue_partition_key, w.forked_from,
       w.was_forked_from, w.parent_workflow_id, w.started_at_epoch_ms, w.delay_until_epoch_ms, w.completed_at,
       w.attributes, w.schedule_name, w.application_name, w.recovery_attempts, w.application_id,
       w.serialization
FROM workflow_status AS w
WHERE TRUE
  AND w.workflow_uuid IN (SELECT value FROM json_each(?3)) -- if workflow_ids
  AND EXISTS (SELECT 1 FROM json_each(?4) AS p WHERE substr(w.workflow_uuid, 1, length(p.value)) = p.value) -- if workflow_id_prefixes
-- By the primary key, which sorts by bytes; no text has a byte FF.
  AND w.workflow_uuid IN (SELECT k.workflow_uuid FROM json_each(?4) AS p JOIN workflow_status AS k ON k.workflow_uuid >= p.value AND k.workflow_uuid < CAST(CAST(p.value AS BLOB) || x'FF' AS TEXT)) -- if workflow_id_prefixes if few
  AND w.status IN (SELECT value FROM json_each(?5)) -- if statuses unless status
  AND w.status = ?27 -- if status
-- The same again with the words of the partial indexes, so that they are used.
  AND w.status = 'PENDING' -- if pending
  AND w.status = 'DELAYED' -- if delayed
  AND w.status IN ('ENQUEUED', 'PENDING') -- if in_flight
  AND w.status IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED') -- if unsuccessful
  AND w.queue_name IS NOT NULL -- if queues_only
  AND w.workflow_uuid IN ( -- if active
    SELECT workflow_uuid FROM workflow_status -- if active
    WHERE status IN ('ENQUEUED', 'PENDING') AND queue_name IS NOT NULL -- if active
    UNION ALL -- if active
    SELECT workflow_uuid FROM workflow_status WHERE status = 'DELAYED') -- if active
  AND w.queue_name IN (SELECT value FROM json_each(?6)) -- if queue_names
  AND w.name IN (SELECT value FROM json_each(?7)) -- if names
  AND w.application_version IN (SELECT value FROM json_each(?8)) -- if app_versions
  AND w.authenticated_user IN (SELECT value FROM json_each(?9)) -- if users
  AND w.executor_id IN (SELECT value FROM json_each(?10)) -- if executor_ids
  AND w.forked_from IN (SELECT value FROM json_each(?11)) AND w.forked_from IS NOT NULL -- if forked_from
  AND w.parent_workflow_id IN (SELECT value FROM json_each(?12)) AND w.parent_workflow_id IS NOT NULL -- if parent_workflow_ids
  AND w.schedule_name IN (SELECT value FROM json_each(?13)) AND w.schedule_name IS NOT NULL -- if schedule_names
  AND w.created_at >= ?14 -- if created_from_ms
  AND w.created_at <= ?15 -- if created_until_ms
  AND w.completed_at >= ?16 AND w.completed_at IS NOT NULL -- if completed_from_ms if few
-- A plus keeps SQLite from using the index.
  AND +w.completed_at >= ?16 -- if completed_from_ms unless few
  AND w.completed_at <= ?17 AND w.completed_at IS NOT NULL -- if completed_until_ms if few
  AND +w.completed_at <= ?17 -- if completed_until_ms unless few
  AND w.started_at_epoch_ms >= ?18 AND w.started_at_epoch_ms IS NOT NULL -- if started_from_ms if few
  AND +w.started_at_epoch_ms >= ?18 -- if started_from_ms unless few
  AND w.started_at_epoch_ms <= ?19 AND w.started_at_epoch_ms IS NOT NULL -- if started_until_ms if few
  AND +w.started_at_epoch_ms <= ?19 -- if started_until_ms unless few
  AND w.was_forked_from = ?20 -- if was_forked_from
  AND (w.forked_from IS NOT NULL) = ?21 -- if is_fork
  AND w.forked_from IS NOT NULL -- if forks_only
  AND (w.parent_workflow_id IS NOT NULL) = ?22 -- if has_parent
  AND json_contains(w.attributes, ?23) -- if attributes
  AND (w.application_name IN (SELECT value FROM json_each(?24)) OR w.application_name IS NULL) -- if application_names
  AND (w.created_at, w.workflow_uuid) > (json_extract(?25, '$[0]'), json_extract(?25, '$[1]')) -- if after
  AND (w.created_at, w.workflow_uuid) < (json_extract(?26, '$[0]'), json_extract(?26, '$[1]')) -- if before
