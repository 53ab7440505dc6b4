-- Managing workflows: what each call changes, in one transaction, in workflow code with the step row of the caller.

-- name: name_transaction
-- None: a commit that fails is rolled back, so that its outcome is always known (see `once.Once`).
SELECT NULL;

-- name: find_transaction
-- Never asked here.
SELECT 'aborted' WHERE ?1 IS NOT NULL;

-- name: find_states
-- State and owner of the workflows in ?1 (a JSON array of ids).
SELECT w.workflow_uuid, w.status, w.owner_xid FROM json_each(?1) AS r
JOIN workflow_status AS w ON w.workflow_uuid = r.value;

-- name: lock_workflows
-- Those of the workflows in ?1 (a JSON array of ids) that exist, kept as they are: the transaction has the write lock.
SELECT w.workflow_uuid FROM json_each(?1) AS r JOIN workflow_status AS w ON w.workflow_uuid = r.value;

-- name: lock_for_deletion
SELECT w.workflow_uuid FROM json_each(?1) AS r JOIN workflow_status AS w ON w.workflow_uuid = r.value;

-- name: fork_workflow
-- Fork ?2 of workflow ?1, made with token ?3: version ?4, queue ?5, partition key ?6, timeout ?7 in ms; ?8 owns it when
-- nobody owns the source.
INSERT INTO workflow_status
  (workflow_uuid, status, name, class_name, config_name, application_id, authenticated_user, authenticated_roles,
   assumed_role, serialization, attributes, application_name, application_version, queue_name, queue_partition_key,
   workflow_timeout_ms, forked_from, creator_xid, created_at, updated_at)
SELECT ?2, 'ENQUEUED', name, class_name, config_name, application_id, authenticated_user, authenticated_roles,
       assumed_role, serialization, attributes, COALESCE(application_name, ?8), ?4, ?5, ?6,
       ?7, workflow_uuid, ?3, ?9, ?9
FROM workflow_status WHERE workflow_uuid = ?1
ON CONFLICT DO NOTHING;

-- name: copy_inputs
-- Of workflow ?1 to ?2. What an earlier workflow of that id has left behind is replaced.
INSERT INTO workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT ?2, COALESCE(i.inputs, w.inputs), ?3
FROM workflow_status AS w LEFT JOIN workflow_input AS i ON i.workflow_uuid = w.workflow_uuid
WHERE w.workflow_uuid = ?1
ON CONFLICT (workflow_uuid) DO UPDATE SET inputs = excluded.inputs;

-- name: note_fork
UPDATE workflow_status SET was_forked_from = TRUE WHERE workflow_uuid = ?1;

-- name: copy_steps
-- Steps below ?3 of workflow ?1 to its fork ?2; ?4 is a JSON object of children that are replaced. What the fork shall
-- have from those it awaits again: the results of the others would stand in its way.
INSERT INTO operation_outputs
  (workflow_uuid, function_id, function_name, output, error, child_workflow_id, started_at_epoch_ms,
   completed_at_epoch_ms, serialization, application_name, retention_timestamp)
SELECT ?2, o.function_id, o.function_name, o.output, o.error,
       COALESCE((SELECT m.value FROM json_each(?4) AS m WHERE m.key = o.child_workflow_id), o.child_workflow_id),
       o.started_at_epoch_ms, o.completed_at_epoch_ms, o.serialization,
       (SELECT f.application_name FROM workflow_status AS f WHERE f.workflow_uuid = ?2), ?5
FROM operation_outputs AS o
WHERE o.workflow_uuid = ?1 AND o.function_id < ?3
  AND (o.function_name <> 'DBOS.getResult' OR NOT EXISTS (
    SELECT 1 FROM json_each(?4) AS m WHERE m.key = o.child_workflow_id));

-- name: copy_event_history
INSERT INTO workflow_events_history (workflow_uuid, function_id, key, value, serialization)
SELECT ?2, h.function_id, h.key, h.value, h.serialization
FROM workflow_events_history AS h WHERE h.workflow_uuid = ?1 AND h.function_id < ?3;

-- name: restore_events
-- For workflow ?2 the values that workflow ?1, which may be the same, had before step ?3; a value that is there stays.
INSERT INTO workflow_events (workflow_uuid, key, value, serialization)
SELECT ?2, h.key, h.value, h.serialization
FROM workflow_events_history AS h
WHERE h.workflow_uuid = ?1 AND h.function_id = (
  SELECT max(l.function_id) FROM workflow_events_history AS l
  WHERE l.workflow_uuid = ?1 AND l.key = h.key AND l.function_id < ?3)
ON CONFLICT (workflow_uuid, key) DO NOTHING;

-- name: copy_streams
INSERT INTO streams (workflow_uuid, key, value, "offset", function_id, serialization)
SELECT ?2, s.key, s.value, s."offset", s.function_id, s.serialization
FROM streams AS s WHERE s.workflow_uuid = ?1 AND s.function_id < ?3;

-- name: rewind_workflow
-- Workflow ?1, which has ended, waits again: on queue ?2, with partition key ?3, for version ?4 or the one it had. The
-- queue that was noted in `request` (see parts/leave_queue.sql) is forgotten.
UPDATE workflow_status
SET status = 'ENQUEUED', recovery_attempts = 0, owner_xid = NULL, queue_name = ?2, queue_partition_key = ?3,
    application_version = COALESCE(?4, application_version), workflow_deadline_epoch_ms = NULL,
    deduplication_id = NULL, started_at_epoch_ms = NULL, completed_at = NULL, output = NULL, error = NULL,
    request = CASE WHEN request LIKE '{"dbos.queue":%' THEN NULL ELSE request END, updated_at = ?5
WHERE workflow_uuid = ?1 AND status NOT IN ('PENDING', 'ENQUEUED', 'DELAYED');

-- name: forget_events
-- Of workflow ?1: those that were set at step ?2 or later.
DELETE FROM workflow_events
WHERE workflow_uuid = ?1 AND key IN (
  SELECT h.key FROM workflow_events_history AS h WHERE h.workflow_uuid = ?1 AND h.function_id >= ?2);

-- name: forget_history
-- Of workflow ?1, from step ?2 on: steps, values of events, ends of streams, and messages that were taken there or by
-- nobody. What was written into streams stays. The outcome goes too.
DELETE FROM operation_outputs WHERE workflow_uuid = ?1 AND function_id >= ?2;
DELETE FROM workflow_events_history WHERE workflow_uuid = ?1 AND function_id >= ?2;
DELETE FROM streams
WHERE workflow_uuid = ?1 AND function_id >= ?2 AND value = '"__DBOS_STREAM_CLOSED__"'
  AND serialization = 'portable_json';
DELETE FROM notifications
WHERE destination_uuid = ?1 AND (NOT consumed OR consumed_by_function_id >= ?2);
DELETE FROM workflow_output WHERE workflow_uuid = ?1 AND ?2 IS NOT NULL;

-- name: delete_workflows
-- Everything of the workflows in ?1 (a JSON array of ids), also where a connection does not enforce foreign keys.
DELETE FROM workflow_status WHERE workflow_uuid IN (SELECT value FROM json_each(?1));
DELETE FROM operation_outputs WHERE workflow_uuid IN (SELECT value FROM json_each(?1));
DELETE FROM workflow_input WHERE workflow_uuid IN (SELECT value FROM json_each(?1));
DELETE FROM workflow_output WHERE workflow_uuid IN (SELECT value FROM json_each(?1));
DELETE FROM notifications WHERE destination_uuid IN (SELECT value FROM json_each(?1));
DELETE FROM workflow_events WHERE workflow_uuid IN (SELECT value FROM json_each(?1));
DELETE FROM workflow_events_history WHERE workflow_uuid IN (SELECT value FROM json_each(?1));
DELETE FROM streams WHERE workflow_uuid IN (SELECT value FROM json_each(?1));

-- name: relabel_workflow
-- The format of a workflow's payloads becomes ?3: what is about to be recorded as its outcome is in that one.
UPDATE workflow_status SET serialization = ?3
WHERE workflow_uuid = ?1 AND owner_xid = ?2 AND status = 'PENDING';

-- name: set_attributes
UPDATE workflow_status SET attributes = ?2, updated_at = ?3 WHERE workflow_uuid = ?1;

-- name: merge_attributes
-- The keys of ?2 replace those of the same name; the others stay.
UPDATE workflow_status SET attributes = json_merge(attributes, ?2), updated_at = ?3 WHERE workflow_uuid = ?1;
