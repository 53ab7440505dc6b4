-- Steps: the rows of operation_outputs. Keys of a record in ?1: w workflow, t owner token, i step id, n name,
-- o output, e error, z serialization, b began (ms), f finished (ms), a application, c child workflow.

-- name: record_steps
-- Insert-if-absent, only where the token still owns the workflow: repeating it after a lost answer changes
-- nothing. A count short of the number of records sends each one to `find_step` for its own verdict.
INSERT INTO operation_outputs
  (workflow_uuid, function_id, function_name, output, error, child_workflow_id,
   started_at_epoch_ms, completed_at_epoch_ms, serialization, application_name, retention_timestamp)
SELECT w.workflow_uuid, json_extract(r.value, '$.i'), json_extract(r.value, '$.n'), json_extract(r.value, '$.o'), json_extract(r.value, '$.e'),
       json_extract(r.value, '$.c'), json_extract(r.value, '$.b'), json_extract(r.value, '$.f'), json_extract(r.value, '$.z'), json_extract(r.value, '$.a'), ?2
FROM json_each(?1) AS r
JOIN workflow_status AS w ON w.workflow_uuid = json_extract(r.value, '$.w') AND w.owner_xid = json_extract(r.value, '$.t')
WHERE TRUE
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;

-- name: find_step
-- What stands at one step id, and who owns the workflow: decides a verdict after a conflict.
SELECT w.owner_xid, o.function_name, o.completed_at_epoch_ms, o.child_workflow_id
FROM workflow_status AS w
LEFT JOIN operation_outputs AS o ON o.workflow_uuid = w.workflow_uuid AND o.function_id = ?2
WHERE w.workflow_uuid = ?1;

-- name: load_steps
-- Recorded steps of several workflows (?1, a JSON array of ids) with ?2 < step id <= ?3.
SELECT o.workflow_uuid, o.function_id, o.function_name, o.output, o.error, o.serialization,
       o.child_workflow_id, o.started_at_epoch_ms, o.completed_at_epoch_ms
FROM json_each(?1) AS r
JOIN operation_outputs AS o ON o.workflow_uuid = r.value
WHERE o.function_id > ?2 AND o.function_id <= ?3
ORDER BY o.workflow_uuid, o.function_id;

-- name: list_steps
SELECT function_id, function_name, output, error, serialization, child_workflow_id,
       started_at_epoch_ms, completed_at_epoch_ms
FROM operation_outputs
WHERE workflow_uuid = ?1
ORDER BY function_id
LIMIT ?2 OFFSET ?3;

-- name: list_steps_without_payloads
SELECT function_id, function_name, NULL, NULL, serialization, child_workflow_id,
       started_at_epoch_ms, completed_at_epoch_ms
FROM operation_outputs
WHERE workflow_uuid = ?1
ORDER BY function_id
LIMIT ?2 OFFSET ?3;
