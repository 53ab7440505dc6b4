-- Debouncing: look who holds a key, and delay that workflow further.

-- name: find_key_holder
-- Who holds deduplication id $2 of queue $1, and whether that queue is registered: always one row.
SELECT EXISTS (SELECT FROM {schema}.queues WHERE name = $1::text),
       w.workflow_uuid, w.name, w.status, w.is_debounced, w.application_name
FROM (SELECT) AS one
LEFT JOIN {schema}.workflow_status AS w ON w.queue_name = $1::text AND w.deduplication_id = $2::text;

-- name: bounce
-- Give workflow $1 the inputs $7 in the format $8 and let it start at $6, no later than its debounce deadline, if it
-- still is the delayed, debounced workflow of the name $2 that holds deduplication id $4 of queue $3, of application $5
-- or of none (of any when $5 is NULL); $9 is now. Called by a workflow, that one is $10, its owner token $11, and
-- its step $12 (name $13, output $14, format $15, began $16, finished $17, application $18, child $19) is written with
-- it: a free step id is what lets the bounce happen, so a repeated one finds its own step and changes nothing.
-- Both rows are locked in id order, as everywhere, and looked at behind the locks.
WITH locked AS MATERIALIZED (
  SELECT workflow_uuid, owner_xid, name, status, queue_name, deduplication_id, is_debounced, application_name
  FROM {schema}.workflow_status
  WHERE workflow_uuid = ANY (ARRAY[$1::text, $10::text])
  ORDER BY workflow_uuid
  FOR NO KEY UPDATE
), allowed AS MATERIALIZED (
  SELECT workflow_uuid FROM locked
  WHERE workflow_uuid = $1::text AND status = 'DELAYED' AND is_debounced AND name = $2::text
    AND queue_name = $3::text AND deduplication_id = $4::text
    AND ($5::text IS NULL OR application_name IS NULL OR application_name = $5::text)
    AND ($10::text IS NULL OR EXISTS (
      SELECT FROM locked AS parent WHERE parent.workflow_uuid = $10::text AND parent.owner_xid = $11::text))
), recorded AS (
  INSERT INTO {schema}.operation_outputs
    (workflow_uuid, function_id, function_name, output, serialization, started_at_epoch_ms, completed_at_epoch_ms,
     application_name, child_workflow_id, retention_timestamp)
  SELECT $10::text, $12::int4, $13::text, $14::text, $15::text, $16::int8, $17::int8, $18::text, $19::text, $9::int8
  FROM allowed WHERE $10::text IS NOT NULL
  ON CONFLICT (workflow_uuid, function_id) DO NOTHING
  RETURNING function_id
), bounced AS MATERIALIZED (
  SELECT workflow_uuid FROM allowed WHERE $10::text IS NULL OR EXISTS (SELECT FROM recorded)
), replaced AS (
  INSERT INTO {schema}.workflow_input (workflow_uuid, inputs, retention_timestamp)
  SELECT workflow_uuid, $7::text, $9::int8 FROM bounced
  ON CONFLICT (workflow_uuid) DO UPDATE SET inputs = excluded.inputs
)
UPDATE {schema}.workflow_status
SET delay_until_epoch_ms = LEAST($6::int8, debounce_deadline_epoch_ms), serialization = $8::text,
    application_name = COALESCE(application_name, $5::text), updated_at = $9::int8
WHERE workflow_uuid = ANY (ARRAY(SELECT workflow_uuid FROM bounced))
RETURNING workflow_uuid;
