-- Managing workflows: what each call changes, in one transaction, in workflow code with the step row of the caller.
-- Whoever writes for a workflow holds its row until the commit. So behind the lock everything of a workflow is in sight,
-- and stays as it is: each statement of the transaction sees the same.

-- name: name_transaction
-- The id by which the database knows this transaction, also when its connection was lost (see `once.Once`).
SELECT txid_current()::text;

-- name: find_transaction
-- Whether transaction $1 is 'committed', 'aborted' or 'in progress'.
SELECT txid_status($1::text::int8);

-- name: find_states
-- State and owner of the workflows in $1 (a JSON array of ids).
SELECT workflow_uuid, status, owner_xid FROM {schema}.workflow_status
WHERE workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text($1::json)));

-- name: lock_workflows
-- Those of the workflows in $1 (a JSON array of ids) that exist, kept as they are until the transaction ends; locked in
-- id order, as everywhere.
SELECT workflow_uuid FROM {schema}.workflow_status
WHERE workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text($1::json)))
ORDER BY workflow_uuid
FOR NO KEY UPDATE;

-- name: lock_for_deletion
-- As lock_workflows, and nobody can write what refers to them.
SELECT workflow_uuid FROM {schema}.workflow_status
WHERE workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text($1::json)))
ORDER BY workflow_uuid
FOR UPDATE;

-- name: fork_workflow
-- Fork $2 of workflow $1, made with token $3: version $4, queue $5, partition key $6, timeout $7 in ms; $8 owns it when
-- nobody owns the source.
INSERT INTO {schema}.workflow_status
  (workflow_uuid, status, name, class_name, config_name, application_id, authenticated_user, authenticated_roles,
   assumed_role, serialization, attributes, application_name, application_version, queue_name, queue_partition_key,
   workflow_timeout_ms, forked_from, creator_xid)
SELECT $2::text, 'ENQUEUED', name, class_name, config_name, application_id, authenticated_user, authenticated_roles,
       assumed_role, serialization, attributes, COALESCE(application_name, $8::text), $4::text, $5::text, $6::text,
       $7::int8, workflow_uuid, $3::text
FROM {schema}.workflow_status WHERE workflow_uuid = $1::text AND $9::int8 IS NOT NULL
ON CONFLICT DO NOTHING;

-- name: copy_inputs
-- Of workflow $1 to $2. What an earlier workflow of that id has left behind is replaced.
INSERT INTO {schema}.workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT $2::text, COALESCE(i.inputs, w.inputs), $3::int8
FROM {schema}.workflow_status AS w LEFT JOIN {schema}.workflow_input AS i ON i.workflow_uuid = w.workflow_uuid
WHERE w.workflow_uuid = $1::text
ON CONFLICT (workflow_uuid) DO UPDATE SET inputs = excluded.inputs;

-- name: note_fork
UPDATE {schema}.workflow_status SET was_forked_from = TRUE WHERE workflow_uuid = $1::text;

-- name: copy_steps
-- Steps below $3 of workflow $1 to its fork $2; $4 is a JSON object of children that are replaced. What the fork shall
-- have from those it awaits again: the results of the others would stand in its way.
INSERT INTO {schema}.operation_outputs
  (workflow_uuid, function_id, function_name, output, error, child_workflow_id, started_at_epoch_ms,
   completed_at_epoch_ms, serialization, application_name, retention_timestamp)
SELECT $2::text, o.function_id, o.function_name, o.output, o.error,
       COALESCE($4::jsonb ->> o.child_workflow_id, o.child_workflow_id),
       o.started_at_epoch_ms, o.completed_at_epoch_ms, o.serialization,
       (SELECT f.application_name FROM {schema}.workflow_status AS f WHERE f.workflow_uuid = $2::text), $5::int8
FROM {schema}.operation_outputs AS o
WHERE o.workflow_uuid = $1::text AND o.function_id < $3::int8
  AND (o.function_name <> 'DBOS.getResult' OR $4::jsonb ->> o.child_workflow_id IS NULL);

-- name: copy_event_history
INSERT INTO {schema}.workflow_events_history (workflow_uuid, function_id, key, value, serialization)
SELECT $2::text, h.function_id, h.key, h.value, h.serialization
FROM {schema}.workflow_events_history AS h WHERE h.workflow_uuid = $1::text AND h.function_id < $3::int8;

-- name: restore_events
-- For workflow $2 the values that workflow $1, which may be the same, had before step $3; a value that is there stays.
INSERT INTO {schema}.workflow_events (workflow_uuid, key, value, serialization)
SELECT DISTINCT ON (h.key) $2::text, h.key, h.value, h.serialization
FROM {schema}.workflow_events_history AS h
WHERE h.workflow_uuid = $1::text AND h.function_id < $3::int8
ORDER BY h.key, h.function_id DESC
ON CONFLICT (workflow_uuid, key) DO NOTHING;

-- name: copy_streams
INSERT INTO {schema}.streams (workflow_uuid, key, value, "offset", function_id, serialization)
SELECT $2::text, s.key, s.value, s."offset", s.function_id, s.serialization
FROM {schema}.streams AS s WHERE s.workflow_uuid = $1::text AND s.function_id < $3::int8;

-- name: rewind_workflow
-- Workflow $1, which has ended, waits again: on queue $2, with partition key $3, for version $4 or the one it had. The
-- queue that was noted in `request` (see parts/leave_queue.sql) is forgotten.
UPDATE {schema}.workflow_status
SET status = 'ENQUEUED', recovery_attempts = 0, owner_xid = NULL, queue_name = $2::text,
    queue_partition_key = $3::text, application_version = COALESCE($4::text, application_version),
    workflow_deadline_epoch_ms = NULL, deduplication_id = NULL, started_at_epoch_ms = NULL, completed_at = NULL,
    output = NULL, error = NULL,
    request = CASE WHEN request LIKE '{"dbos.queue":%' THEN NULL ELSE request END,
    updated_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint
WHERE workflow_uuid = $1::text AND status NOT IN ('PENDING', 'ENQUEUED', 'DELAYED') AND $5::int8 IS NOT NULL;

-- name: forget_events
-- Of workflow $1: those that were set at step $2 or later.
DELETE FROM {schema}.workflow_events
WHERE workflow_uuid = $1::text AND key IN (
  SELECT h.key FROM {schema}.workflow_events_history AS h
  WHERE h.workflow_uuid = $1::text AND h.function_id >= $2::int8);

-- name: forget_history
-- Of workflow $1, from step $2 on: steps, values of events, ends of streams, and messages that were taken there or by
-- nobody. What was written into streams stays. The outcome goes too.
WITH steps AS (
  DELETE FROM {schema}.operation_outputs WHERE workflow_uuid = $1::text AND function_id >= $2::int8
), history AS (
  DELETE FROM {schema}.workflow_events_history WHERE workflow_uuid = $1::text AND function_id >= $2::int8
), ends AS (
  DELETE FROM {schema}.streams
  WHERE workflow_uuid = $1::text AND function_id >= $2::int8 AND value = '"__DBOS_STREAM_CLOSED__"'
    AND serialization = 'portable_json'
), messages AS (
  DELETE FROM {schema}.notifications
  WHERE destination_uuid = $1::text AND (NOT consumed OR consumed_by_function_id >= $2::int8)
)
DELETE FROM {schema}.workflow_output WHERE workflow_uuid = $1::text;

-- name: delete_workflows
-- Everything of the workflows in $1 (a JSON array of ids); messages, events and streams go with the status row.
WITH ids AS MATERIALIZED (
  SELECT json_array_elements_text($1::json) AS id
), steps AS (
  DELETE FROM {schema}.operation_outputs WHERE workflow_uuid = ANY (ARRAY(SELECT id FROM ids))
), inputs AS (
  DELETE FROM {schema}.workflow_input WHERE workflow_uuid = ANY (ARRAY(SELECT id FROM ids))
), outputs AS (
  DELETE FROM {schema}.workflow_output WHERE workflow_uuid = ANY (ARRAY(SELECT id FROM ids))
)
DELETE FROM {schema}.workflow_status WHERE workflow_uuid = ANY (ARRAY(SELECT id FROM ids));

-- name: relabel_workflow
-- The format of a workflow's payloads becomes $3: what is about to be recorded as its outcome is in that one.
UPDATE {schema}.workflow_status SET serialization = $3::text
WHERE workflow_uuid = $1::text AND owner_xid = $2::text AND status || '' = 'PENDING';

-- name: set_attributes
UPDATE {schema}.workflow_status
SET attributes = $2::jsonb, updated_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint
WHERE workflow_uuid = $1::text AND $3::int8 IS NOT NULL;

-- name: merge_attributes
-- The keys of $2 replace those of the same name; the others stay.
UPDATE {schema}.workflow_status
SET attributes = CASE WHEN jsonb_typeof(attributes) = 'object' THEN attributes ELSE '{}' END || $2::jsonb,
    updated_at = (EXTRACT(epoch FROM now()) * 1000.0)::bigint
WHERE workflow_uuid = $1::text AND $3::int8 IS NOT NULL;
