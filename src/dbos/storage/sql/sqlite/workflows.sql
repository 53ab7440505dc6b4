-- Workflows: status, inputs, outcome. Keys of a start in ?1: w workflow, s status, n name, cn class, gn configured
-- instance, in inputs, z serialization, ct creator token, ot owner token, x executor, v version, ai application id,
-- a application, r recovery attempts, to timeout, dl deadline, u user, ro roles, ar assumed role, at attributes;
-- of a child start also p parent, pt its owner token, i step id, b began, f finished, rj reject an existing one.
-- of a workflow that waits on a queue also q queue, pr priority, dd deduplication id, pk partition key, du delayed
-- until, sn schedule, db debounced, de debounce deadline.
-- Every time is supplied by the process (?2): the defaults frozen into an old file may have second precision.

-- name: start_workflows
-- Insert-if-absent. The inputs follow only the row whose creator token is ours, so a refused start leaves no input
-- and a repeated one finds its own row.
INSERT INTO workflow_status
  (workflow_uuid, status, name, class_name, config_name, serialization, creator_xid, owner_xid, executor_id,
   application_version, application_id, application_name, recovery_attempts, workflow_timeout_ms,
   workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, assumed_role, attributes,
   queue_name, priority, deduplication_id, queue_partition_key,
   delay_until_epoch_ms, schedule_name, is_debounced, debounce_deadline_epoch_ms, created_at, updated_at)
SELECT json_extract(r.value, '$.w'), json_extract(r.value, '$.s'), json_extract(r.value, '$.n'), json_extract(r.value, '$.cn'), json_extract(r.value, '$.gn'),
       json_extract(r.value, '$.z'), json_extract(r.value, '$.ct'), json_extract(r.value, '$.ot'), json_extract(r.value, '$.x'), json_extract(r.value, '$.v'),
       json_extract(r.value, '$.ai'), json_extract(r.value, '$.a'), json_extract(r.value, '$.r'), json_extract(r.value, '$.to'), json_extract(r.value, '$.dl'),
       json_extract(r.value, '$.u'), json_extract(r.value, '$.ro'), json_extract(r.value, '$.ar'), json_extract(r.value, '$.at'),
       json_extract(r.value, '$.q'), COALESCE(json_extract(r.value, '$.pr'), 0), json_extract(r.value, '$.dd'), json_extract(r.value, '$.pk'), json_extract(r.value, '$.du'), json_extract(r.value, '$.sn'),
       COALESCE(json_extract(r.value, '$.db'), 0), json_extract(r.value, '$.de'),
       ?2, ?2
FROM json_each(?1) AS r
WHERE TRUE
ON CONFLICT DO NOTHING;
INSERT INTO workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT w.workflow_uuid, json_extract(r.value, '$.in'), ?2
FROM json_each(?1) AS r
JOIN workflow_status AS w ON w.workflow_uuid = json_extract(r.value, '$.w') AND w.creator_xid = json_extract(r.value, '$.ct')
WHERE TRUE
ON CONFLICT (workflow_uuid) DO NOTHING;

-- name: start_children
-- As start_workflows, but only while the parent is still owned by the execution that starts the child, and at a step
-- id that is free.
INSERT INTO workflow_status
  (workflow_uuid, status, name, class_name, config_name, serialization, creator_xid, owner_xid, executor_id,
   application_version, application_id, application_name, recovery_attempts, workflow_timeout_ms,
   workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, assumed_role, attributes,
   parent_workflow_id, queue_name, priority, deduplication_id, queue_partition_key,
   delay_until_epoch_ms, schedule_name, is_debounced, debounce_deadline_epoch_ms, created_at, updated_at)
SELECT json_extract(r.value, '$.w'), json_extract(r.value, '$.s'), json_extract(r.value, '$.n'), json_extract(r.value, '$.cn'), json_extract(r.value, '$.gn'),
       json_extract(r.value, '$.z'), json_extract(r.value, '$.ct'), json_extract(r.value, '$.ot'), json_extract(r.value, '$.x'), json_extract(r.value, '$.v'),
       json_extract(r.value, '$.ai'), json_extract(r.value, '$.a'), json_extract(r.value, '$.r'), json_extract(r.value, '$.to'), json_extract(r.value, '$.dl'),
       json_extract(r.value, '$.u'), json_extract(r.value, '$.ro'), json_extract(r.value, '$.ar'), json_extract(r.value, '$.at'),
       p.workflow_uuid, json_extract(r.value, '$.q'), COALESCE(json_extract(r.value, '$.pr'), 0), json_extract(r.value, '$.dd'), json_extract(r.value, '$.pk'), json_extract(r.value, '$.du'), json_extract(r.value, '$.sn'),
       COALESCE(json_extract(r.value, '$.db'), 0), json_extract(r.value, '$.de'),
       ?2, ?2
FROM json_each(?1) AS r
JOIN workflow_status AS p ON p.workflow_uuid = json_extract(r.value, '$.p') AND p.owner_xid = json_extract(r.value, '$.pt')
WHERE NOT EXISTS (
  SELECT 1 FROM operation_outputs AS o
  WHERE o.workflow_uuid = p.workflow_uuid AND o.function_id = json_extract(r.value, '$.i'))
ON CONFLICT DO NOTHING;
INSERT INTO workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT w.workflow_uuid, json_extract(r.value, '$.in'), ?2
FROM json_each(?1) AS r
JOIN workflow_status AS w ON w.workflow_uuid = json_extract(r.value, '$.w') AND w.creator_xid = json_extract(r.value, '$.ct')
WHERE TRUE
ON CONFLICT (workflow_uuid) DO NOTHING;

-- name: record_child_starts
-- The parent's step row, in the transaction of start_children: written when the child is ours, or when an existing
-- workflow of the same function may be attached to.
INSERT INTO operation_outputs
  (workflow_uuid, function_id, function_name, child_workflow_id,
   started_at_epoch_ms, completed_at_epoch_ms, application_name, retention_timestamp)
SELECT p.workflow_uuid, json_extract(r.value, '$.i'), json_extract(r.value, '$.n'), c.workflow_uuid,
       json_extract(r.value, '$.b'), json_extract(r.value, '$.f'), json_extract(r.value, '$.a'), ?2
FROM json_each(?1) AS r
JOIN workflow_status AS p ON p.workflow_uuid = json_extract(r.value, '$.p') AND p.owner_xid = json_extract(r.value, '$.pt')
JOIN workflow_status AS c ON c.workflow_uuid = json_extract(r.value, '$.w')
WHERE c.name IS (json_extract(r.value, '$.n')) AND c.class_name IS (json_extract(r.value, '$.cn'))
  AND c.config_name IS (json_extract(r.value, '$.gn'))
  AND (c.creator_xid = json_extract(r.value, '$.ct') OR NOT (json_extract(r.value, '$.rj')))
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;

-- name: find_start
-- The row a start met.
SELECT status, name, class_name, config_name, queue_name, serialization, creator_xid
FROM workflow_status WHERE workflow_uuid = ?1;

-- name: finish_workflows
-- The outcome, only while the row is PENDING and owned by this execution. Output first, since the update clears the
-- owner that both look at; one transaction holds them together.
INSERT INTO workflow_output (workflow_uuid, output, error, retention_timestamp)
SELECT w.workflow_uuid, json_extract(r.value, '$.o'), json_extract(r.value, '$.e'), ?2
FROM json_each(?1) AS r
JOIN workflow_status AS w ON w.workflow_uuid = json_extract(r.value, '$.w') AND w.owner_xid = json_extract(r.value, '$.t')
WHERE w.status = 'PENDING'
ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output, error = excluded.error;
UPDATE workflow_status
SET status = json_extract(r.value, '$.s'), owner_xid = NULL, deduplication_id = NULL, updated_at = ?2, completed_at = ?2
FROM json_each(?1) AS r
WHERE workflow_uuid = json_extract(r.value, '$.w') AND status = 'PENDING' AND owner_xid = json_extract(r.value, '$.t');

-- name: find_outcomes
-- Status and payloads of the workflows in ?1 (a JSON array of ids).
SELECT w.workflow_uuid, w.status, COALESCE(o.output, w.output), COALESCE(o.error, w.error), w.serialization
FROM json_each(?1) AS r
JOIN workflow_status AS w ON w.workflow_uuid = r.value
LEFT JOIN workflow_output AS o ON o.workflow_uuid = w.workflow_uuid;

-- name: find_final
-- Which of the workflows in ?1 (a JSON array of ids) have ended.
SELECT w.workflow_uuid
FROM json_each(?1) AS r
JOIN workflow_status AS w ON w.workflow_uuid = r.value
WHERE w.status NOT IN ('PENDING', 'ENQUEUED', 'DELAYED');

-- name: get_workflow
SELECT w.workflow_uuid, w.status, w.name, w.class_name, w.config_name, w.authenticated_user, w.assumed_role,
       w.authenticated_roles, COALESCE(i.inputs, w.inputs), COALESCE(o.output, w.output),
       COALESCE(o.error, w.error), w.created_at, w.updated_at, w.queue_name, w.executor_id,
       w.application_version, w.workflow_timeout_ms, w.workflow_deadline_epoch_ms, w.deduplication_id, w.priority,
       w.queue_partition_key, w.forked_from, w.was_forked_from, w.parent_workflow_id, w.started_at_epoch_ms,
       w.delay_until_epoch_ms, w.completed_at, w.attributes, w.schedule_name, w.application_name,
       w.recovery_attempts, w.application_id, w.serialization
FROM workflow_status AS w
LEFT JOIN workflow_input AS i ON i.workflow_uuid = w.workflow_uuid
LEFT JOIN workflow_output AS o ON o.workflow_uuid = w.workflow_uuid
WHERE w.workflow_uuid = ?1;

-- name: requeue_pending
-- Recovery: hand the PENDING workflows of one executor (?3) and version (?4) of the application (?5) back to their
-- queue, or to the internal one (?1). Only rows still PENDING change, so asking twice is harmless. With ?6 (a JSON array
-- of processes that are gone) those that another process of ours owns stay with it; of any other owner nothing is known.
UPDATE workflow_status
SET status = 'ENQUEUED', owner_xid = NULL, started_at_epoch_ms = NULL,
    queue_name = COALESCE(queue_name, ?1), updated_at = ?2
WHERE status = 'PENDING' AND executor_id = ?3 AND application_version = ?4
  AND (application_name = ?5 OR application_name IS NULL)
  AND (?6 IS NULL OR owner_xid IS NULL OR owner_xid NOT LIKE '________-____-8___-____-____________'
       OR substr(owner_xid, 1, 18) IN (SELECT value FROM json_each(?6)))
RETURNING workflow_uuid;

-- name: find_claimed
-- The workflows that the claim with token ?1 took: asked only when the answer to a claim was lost.
SELECT workflow_uuid, status, name, class_name, config_name, owner_xid,
  COALESCE((SELECT i.inputs FROM workflow_input AS i WHERE i.workflow_uuid = workflow_status.workflow_uuid), inputs),
  serialization, recovery_attempts, workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, attributes,
  COALESCE(queue_name, '_dbos_internal_queue'), queue_partition_key, priority, created_at,
  EXISTS (SELECT 1 FROM operation_outputs AS o WHERE o.workflow_uuid = workflow_status.workflow_uuid)
FROM workflow_status WHERE status = 'PENDING' AND owner_xid = ?1;

-- name: count_waiting_elsewhere
-- Waiting work of this application that this version will not take: PENDING of this executor or ENQUEUED.
SELECT application_version, status, COUNT(*)
FROM workflow_status
WHERE status IN ('ENQUEUED', 'PENDING') AND (application_name = ?1 OR application_name IS NULL)
  AND application_version <> ?2 AND (status = 'ENQUEUED' OR executor_id = ?3)
GROUP BY application_version, status;

-- name: dead_letter
-- Give a workflow up whose attempts are used; only the claim (?2) that counted them may.
UPDATE workflow_status
SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED',
-- include: parts/leave_queue.sql
    updated_at = ?3, completed_at = ?3
WHERE workflow_uuid = ?1 AND status = 'PENDING' AND owner_xid = ?2;

-- name: cancel_workflows
-- Cancel the workflows in ?1 (a JSON array of ids) that have neither succeeded nor failed.
UPDATE workflow_status
SET status = 'CANCELLED',
-- include: parts/leave_queue.sql
    updated_at = ?2, completed_at = ?2
WHERE workflow_uuid IN (SELECT value FROM json_each(?1)) AND status NOT IN ('SUCCESS', 'ERROR');

-- name: find_children
SELECT c.workflow_uuid FROM json_each(?1) AS r
JOIN workflow_status AS c ON c.parent_workflow_id = r.value AND c.parent_workflow_id IS NOT NULL;

-- name: cancel_overdue
-- Cancel up to 1,000 active workflows of the application (?1) whose deadline is before ?2, earliest first.
UPDATE workflow_status
SET status = 'CANCELLED',
-- include: parts/leave_queue.sql
    updated_at = ?2, completed_at = ?2
WHERE workflow_uuid IN (
  SELECT workflow_uuid FROM workflow_status
  WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED') AND workflow_deadline_epoch_ms IS NOT NULL
    AND workflow_deadline_epoch_ms <= ?2
    AND (application_name = ?1 OR application_name IS NULL)
  ORDER BY workflow_deadline_epoch_ms
  LIMIT 1000)
RETURNING workflow_uuid;

-- name: find_cancelled
-- Which of the workflows in ?1 (a JSON array of ids) are cancelled.
SELECT w.workflow_uuid FROM json_each(?1) AS r
JOIN workflow_status AS w ON w.workflow_uuid = r.value
WHERE w.status = 'CANCELLED';

-- name: find_existing
SELECT w.workflow_uuid FROM json_each(?1) AS r JOIN workflow_status AS w ON w.workflow_uuid = r.value;

-- name: resume_workflows
-- Put the workflows in ?1 (a JSON array of ids) that have neither succeeded nor failed onto queue ?3. Without one, those
-- that were cancelled or given up go back to the queue they were on (see parts/leave_queue.sql), all others to the
-- internal queue ?4. The note of that queue stays, so that doing it again comes to the same.
UPDATE workflow_status
SET status = 'ENQUEUED', recovery_attempts = 0, owner_xid = NULL,
    queue_name = COALESCE(
      ?3, CASE WHEN request LIKE '{"dbos.queue":%' THEN json_extract(request, '$."dbos.queue"') END, ?4),
    request = CASE WHEN ?3 IS NOT NULL AND request LIKE '{"dbos.queue":%' THEN NULL ELSE request END,
    workflow_deadline_epoch_ms = NULL, deduplication_id = NULL, started_at_epoch_ms = NULL,
    completed_at = NULL, updated_at = ?2
WHERE workflow_uuid IN (SELECT value FROM json_each(?1)) AND status NOT IN ('SUCCESS', 'ERROR')
RETURNING queue_name;
