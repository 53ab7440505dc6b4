-- Debouncing: look who holds a key, and delay that workflow further.

-- name: find_key_holder
-- Who holds deduplication id ?2 of queue ?1, and whether that queue is registered: always one row.
SELECT EXISTS (SELECT 1 FROM queues WHERE name = ?1),
       w.workflow_uuid, w.name, w.status, w.is_debounced, w.application_name
FROM (SELECT 1) AS one
LEFT JOIN workflow_status AS w ON w.queue_name = ?1 AND w.deduplication_id = ?2 AND w.deduplication_id IS NOT NULL;

-- name: bounce
-- Give workflow ?1 the inputs ?7 in the format ?8 and let it start at ?6, no later than its debounce deadline, if it
-- still is the delayed, debounced workflow of the name ?2 that holds deduplication id ?4 of queue ?3, of application ?5
-- or of none (of any when ?5 is NULL); ?9 is now. Called by a workflow, that one is ?10, its owner token ?11, and
-- its step ?12 (name ?13, output ?14, format ?15, began ?16, finished ?17, application ?18, child ?19) is written with
-- it: a free step id is what lets the bounce happen, so a repeated one finds its own step and changes nothing.
-- Each text goes on only if the one before it has written its row.
INSERT INTO operation_outputs
  (workflow_uuid, function_id, function_name, output, serialization, started_at_epoch_ms, completed_at_epoch_ms,
   application_name, child_workflow_id, retention_timestamp)
SELECT p.workflow_uuid, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?9
FROM workflow_status AS p
JOIN workflow_status AS w ON w.workflow_uuid = ?1
WHERE p.workflow_uuid = ?10 AND p.owner_xid = ?11
  AND w.status = 'DELAYED' AND w.is_debounced AND w.name = ?2 AND w.queue_name = ?3 AND w.deduplication_id = ?4
  AND (?5 IS NULL OR w.application_name IS NULL OR w.application_name = ?5)
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;
INSERT INTO workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT w.workflow_uuid, ?7, ?9
FROM workflow_status AS w
WHERE w.workflow_uuid = ?1 AND (?10 IS NULL OR changes() = 1)
  AND w.status = 'DELAYED' AND w.is_debounced AND w.name = ?2 AND w.queue_name = ?3 AND w.deduplication_id = ?4
  AND (?5 IS NULL OR w.application_name IS NULL OR w.application_name = ?5)
ON CONFLICT (workflow_uuid) DO UPDATE SET inputs = excluded.inputs;
UPDATE workflow_status
SET delay_until_epoch_ms = min(?6, COALESCE(debounce_deadline_epoch_ms, ?6)), serialization = ?8,
    application_name = COALESCE(application_name, ?5), updated_at = ?9
WHERE workflow_uuid = ?1 AND changes() = 1
RETURNING workflow_uuid;
