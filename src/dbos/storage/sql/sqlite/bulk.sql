-- Many workflows enqueued together, all or none (`store.enqueue_workflows`): at first as if nothing could be in their
-- way, then, if something is, with a statement that passes over it.

-- name: load_workflows
-- Fails if an id or a deduplication id is in use. Runs once per row: twice as fast as taking the rows out of JSON.
INSERT INTO workflow_status
  (workflow_uuid, creator_xid, status, name, class_name, config_name, serialization, executor_id,
   application_version, application_id, application_name, recovery_attempts, workflow_timeout_ms,
   workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, assumed_role, attributes, parent_workflow_id,
   queue_name, priority, deduplication_id, queue_partition_key, delay_until_epoch_ms, schedule_name,
   created_at, updated_at)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24,
        ?25, ?26, ?27);

-- name: load_inputs
INSERT INTO workflow_input (workflow_uuid, inputs, retention_timestamp)
VALUES (?1, ?2, ?3);

-- name: enqueue_workflows
-- Insert-if-absent, from an array of objects in ?1 with the keys of start_workflows, and p parent, ca created at.
-- The inputs follow only the rows whose creator token is ours. ?2 is the process's clock in ms.
INSERT INTO workflow_status
  (workflow_uuid, status, name, class_name, config_name, serialization, creator_xid, executor_id,
   application_version, application_id, application_name, recovery_attempts, workflow_timeout_ms,
   workflow_deadline_epoch_ms, authenticated_user, authenticated_roles, assumed_role, attributes, parent_workflow_id,
   queue_name, priority, deduplication_id, queue_partition_key, delay_until_epoch_ms, schedule_name,
   created_at, updated_at)
SELECT json_extract(r.value, '$.w'), json_extract(r.value, '$.s'), json_extract(r.value, '$.n'), json_extract(r.value, '$.cn'), json_extract(r.value, '$.gn'),
       json_extract(r.value, '$.z'), json_extract(r.value, '$.ct'), json_extract(r.value, '$.x'), json_extract(r.value, '$.v'),
       json_extract(r.value, '$.ai'), json_extract(r.value, '$.a'), json_extract(r.value, '$.r'), json_extract(r.value, '$.to'), json_extract(r.value, '$.dl'),
       json_extract(r.value, '$.u'), json_extract(r.value, '$.ro'), json_extract(r.value, '$.ar'), json_extract(r.value, '$.at'), json_extract(r.value, '$.p'),
       json_extract(r.value, '$.q'), json_extract(r.value, '$.pr'), json_extract(r.value, '$.dd'), json_extract(r.value, '$.pk'), json_extract(r.value, '$.du'), json_extract(r.value, '$.sn'),
       json_extract(r.value, '$.ca'), json_extract(r.value, '$.ca')
FROM json_each(?1) AS r
WHERE ?2 IS NOT NULL
ON CONFLICT DO NOTHING;
INSERT INTO workflow_input (workflow_uuid, inputs, retention_timestamp)
SELECT w.workflow_uuid, json_extract(r.value, '$.in'), ?2
FROM json_each(?1) AS r
JOIN workflow_status AS w ON w.workflow_uuid = json_extract(r.value, '$.w') AND w.creator_xid = json_extract(r.value, '$.ct')
WHERE TRUE
ON CONFLICT (workflow_uuid) DO NOTHING;

-- name: find_starts
-- The rows of the workflows in ?1 (a JSON array of ids), as find_start.
SELECT w.workflow_uuid, w.status, w.name, w.class_name, w.config_name, w.queue_name, w.serialization, w.creator_xid
FROM json_each(?1) AS r
JOIN workflow_status AS w ON w.workflow_uuid = r.value;

-- name: find_newest_waiting
-- The latest creation time of what waits or runs in each of the partitions ?2 (a JSON array of keys) of queue ?1.
SELECT r.value, (
  SELECT max(w.created_at) FROM workflow_status AS w
  WHERE w.queue_name = ?1 AND w.status IN ('ENQUEUED', 'PENDING') AND w.queue_partition_key = r.value) AS newest
FROM json_each(?2) AS r
WHERE newest IS NOT NULL;

-- name: transaction_time
-- The time of the system in ms, at which SQLite stands as well.
SELECT CAST((julianday('now') - 2440587.5) * 86400000.0 AS INTEGER);
