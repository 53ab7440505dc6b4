SELECT w.workflow_uuid, w.status, w.name, w.class_name, w.config_name, w.authenticated_user, w.assumed_role,
       w.authenticated_roles,
       COALESCE((SELECT i.inputs FROM {schema}.workflow_input AS i WHERE i.workflow_uuid = w.workflow_uuid), w.inputs), -- if load_input
       NULL, -- unless load_input
       COALESCE((SELECT o.output FROM {schema}.workflow_output AS o WHERE o.workflow_uuid = w.workflow_uuid), w.output), -- if load_output
       COALESCE((SELECT o.error FROM {schema}.workflow_output AS o WHERE o.workflow_uuid = w.workflow_uuid), w.error), -- if load_output
       NULL, NULL, -- unless load_output
       w.created_at, w.updated_at, w.queue_name, w.executor_id, w.application_version, w.workflow_timeout_ms,
       w.workflow_deadline_epoch_ms, w.deduplication_id, w.priority, w.queue_partition_key, w.forked_from,
       w.was_forked_from, w.parent_workflow_id, w.started_at_epoch_ms, w.delay_until_epoch_ms, w.completed_at,
       w.attributes::text, w.schedule_name, w.application_name, w.recovery_attempts, w.application_id,
       w.serialization
FROM {schema}.workflow_status AS w
WHERE TRUE
  AND w.workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text($3::json))) -- if workflow_ids
  AND EXISTS (SELECT FROM json_array_elements_text($4::json) AS p (id) WHERE starts_with(w.workflow_uuid, p.id)) -- if workflow_id_prefixes
-- Where the database sorts by bytes, the primary key answers this.
  AND w.workflow_uuid LIKE regexp_replace($4::json ->> 0, '([\\%_])', '\\\1', 'g') || '%' -- if workflow_id_prefixes if one_prefix
  AND w.status = ANY (ARRAY(SELECT json_array_elements_text($5::json))) -- if statuses unless status
  AND w.status = $27 -- if status
-- The same again with the words of the partial indexes, so that they are used.
  AND w.status = 'PENDING' -- if pending
  AND w.status = 'DELAYED' -- if delayed
  AND w.status IN ('ENQUEUED', 'PENDING') -- if in_flight
  AND w.status IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED') -- if unsuccessful
  AND w.queue_name IS NOT NULL -- if queues_only
  AND w.workflow_uuid IN ( -- if active
    SELECT workflow_uuid FROM {schema}.workflow_status -- if active
    WHERE status IN ('ENQUEUED', 'PENDING') AND queue_name IS NOT NULL -- if active
    UNION ALL -- if active
    SELECT workflow_uuid FROM {schema}.workflow_status WHERE status = 'DELAYED') -- if active
  AND w.queue_name = ANY (ARRAY(SELECT json_array_elements_text($6::json))) -- if queue_names
  AND w.name = ANY (ARRAY(SELECT json_array_elements_text($7::json))) -- if names
  AND w.application_version = ANY (ARRAY(SELECT json_array_elements_text($8::json))) -- if app_versions
  AND w.authenticated_user = ANY (ARRAY(SELECT json_array_elements_text($9::json))) -- if users
  AND w.executor_id = ANY (ARRAY(SELECT json_array_elements_text($10::json))) -- if executor_ids
  AND w.forked_from = ANY (ARRAY(SELECT json_array_elements_text($11::json))) AND w.forked_from IS NOT NULL -- if forked_from
  AND w.parent_workflow_id = ANY (ARRAY(SELECT json_array_elements_text($12::json))) AND w.parent_workflow_id IS NOT NULL -- if parent_workflow_ids
  AND w.schedule_name = ANY (ARRAY(SELECT json_array_elements_text($13::json))) AND w.schedule_name IS NOT NULL -- if schedule_names
  AND w.created_at >= $14::int8 -- if created_from_ms
  AND w.created_at <= $15::int8 -- if created_until_ms
  AND w.completed_at >= $16::int8 AND w.completed_at IS NOT NULL -- if completed_from_ms
  AND w.completed_at <= $17::int8 AND w.completed_at IS NOT NULL -- if completed_until_ms
  AND w.started_at_epoch_ms >= $18::int8 AND w.started_at_epoch_ms IS NOT NULL -- if started_from_ms
  AND w.started_at_epoch_ms <= $19::int8 AND w.started_at_epoch_ms IS NOT NULL -- if started_until_ms
  AND w.was_forked_from = $20::boolean -- if was_forked_from
  AND (w.forked_from IS NOT NULL) = $21::boolean -- if is_fork
  AND w.forked_from IS NOT NULL -- if forks_only
  AND (w.parent_workflow_id IS NOT NULL) = $22::boolean -- if has_parent
  AND w.attributes @> $23::jsonb -- if attributes
  AND (w.application_name = ANY (ARRAY(SELECT json_array_elements_text($24::json))) OR w.application_name IS NULL) -- if application_names
  AND (w.created_at, w.workflow_uuid) > (($25::json ->> 0)::int8, $25::json ->> 1) -- if after
  AND (w.created_at, w.workflow_uuid) < (($26::json ->> 0)::int8, $26::json ->> 1) -- if before
