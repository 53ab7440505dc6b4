-- Steps: the rows of operation_outputs. Keys of a record in $1: w workflow, t owner token, i step id, n name,
-- o output, e error, z serialization, b began (ms), f finished (ms), a application, c child workflow.

-- name: record_steps
-- Locks the workflow rows in id order, so a hand-over cannot land between check and write and two processes
-- cannot deadlock. Insert-if-absent, only where the token still owns the workflow: repeating it after a lost
-- answer changes nothing. A count short of the number of records sends each one to `find_step`.
-- LATERAL makes each look a search by primary key, whatever the planner believes of the table's size.
INSERT INTO {schema}.operation_outputs
  (workflow_uuid, function_id, function_name, output, error, child_workflow_id,
   started_at_epoch_ms, completed_at_epoch_ms, serialization, application_name, retention_timestamp)
SELECT w, i, n, o, e, c, b, f, z, a, $2::int8
FROM (
  SELECT * FROM json_to_recordset($1::json)
    AS r (w text, t text, i int4, n text, o text, e text, z text, b int8, f int8, a text, c text)
  ORDER BY w
) AS input
CROSS JOIN LATERAL (
  SELECT owner_xid FROM {schema}.workflow_status WHERE workflow_uuid = input.w FOR NO KEY UPDATE
) AS owned
WHERE owned.owner_xid = input.t
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;

-- name: find_step
-- What stands at one step id, and who owns the workflow: decides a verdict after a conflict.
SELECT w.owner_xid, o.function_name, o.completed_at_epoch_ms, o.child_workflow_id
FROM {schema}.workflow_status AS w
LEFT JOIN {schema}.operation_outputs AS o ON o.workflow_uuid = w.workflow_uuid AND o.function_id = $2::int4
WHERE w.workflow_uuid = $1::text;

-- name: load_steps
-- Recorded steps of several workflows ($1, a JSON array of ids) with $2 < step id <= $3.
SELECT workflow_uuid, function_id, function_name, output, error, serialization,
       child_workflow_id, started_at_epoch_ms, completed_at_epoch_ms
FROM {schema}.operation_outputs
WHERE workflow_uuid = ANY (ARRAY(SELECT json_array_elements_text($1::json)))
  AND function_id > $2::int4 AND function_id <= $3::int4
ORDER BY workflow_uuid, function_id;

-- name: list_steps
SELECT function_id, function_name, output, error, serialization, child_workflow_id,
       started_at_epoch_ms, completed_at_epoch_ms
FROM {schema}.operation_outputs
WHERE workflow_uuid = $1::text
ORDER BY function_id
LIMIT $2::int8 OFFSET $3::int8;

-- name: list_steps_without_payloads
SELECT function_id, function_name, NULL, NULL, serialization, child_workflow_id,
       started_at_epoch_ms, completed_at_epoch_ms
FROM {schema}.operation_outputs
WHERE workflow_uuid = $1::text
ORDER BY function_id
LIMIT $2::int8 OFFSET $3::int8;
