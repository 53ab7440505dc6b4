-- Events. Keys of a record in ?1: w workflow, t owner token, i step id, s whether a step row is written with it, k key,
-- v value, z serialization.

-- name: set_events
-- Where the token owns the workflow. With a step row only while that is not there, which is written next: repeating it
-- after a lost answer changes nothing.
INSERT INTO workflow_events_history (workflow_uuid, function_id, key, value, serialization)
SELECT w.workflow_uuid, json_extract(r.value, '$.i'), json_extract(r.value, '$.k'), json_extract(r.value, '$.v'), json_extract(r.value, '$.z')
FROM json_each(?1) AS r
JOIN workflow_status AS w ON w.workflow_uuid = json_extract(r.value, '$.w') AND w.owner_xid = json_extract(r.value, '$.t')
WHERE NOT json_extract(r.value, '$.s') OR NOT EXISTS (
  SELECT 1 FROM operation_outputs AS o
  WHERE o.workflow_uuid = w.workflow_uuid AND o.function_id = json_extract(r.value, '$.i'))
ON CONFLICT (workflow_uuid, function_id, key) DO UPDATE SET value = excluded.value, serialization = excluded.serialization;
INSERT INTO workflow_events (workflow_uuid, key, value, serialization)
SELECT w.workflow_uuid, json_extract(r.value, '$.k'), json_extract(r.value, '$.v'), json_extract(r.value, '$.z')
FROM json_each(?1) AS r
JOIN workflow_status AS w ON w.workflow_uuid = json_extract(r.value, '$.w') AND w.owner_xid = json_extract(r.value, '$.t')
WHERE NOT json_extract(r.value, '$.s') OR NOT EXISTS (
  SELECT 1 FROM operation_outputs AS o
  WHERE o.workflow_uuid = w.workflow_uuid AND o.function_id = json_extract(r.value, '$.i'))
ON CONFLICT (workflow_uuid, key) DO UPDATE SET value = excluded.value, serialization = excluded.serialization;

-- name: set_event
-- The same for one: the fields as parameters, in the order of the keys.
INSERT INTO workflow_events_history (workflow_uuid, function_id, key, value, serialization)
SELECT workflow_uuid, ?3, ?5, ?6, ?7
FROM workflow_status
WHERE workflow_uuid = ?1 AND owner_xid = ?2 AND (NOT ?4 OR NOT EXISTS (
  SELECT 1 FROM operation_outputs WHERE workflow_uuid = ?1 AND function_id = ?3))
ON CONFLICT (workflow_uuid, function_id, key) DO UPDATE SET value = excluded.value, serialization = excluded.serialization;
INSERT INTO workflow_events (workflow_uuid, key, value, serialization)
SELECT workflow_uuid, ?5, ?6, ?7
FROM workflow_status
WHERE workflow_uuid = ?1 AND owner_xid = ?2 AND (NOT ?4 OR NOT EXISTS (
  SELECT 1 FROM operation_outputs WHERE workflow_uuid = ?1 AND function_id = ?3))
ON CONFLICT (workflow_uuid, key) DO UPDATE SET value = excluded.value, serialization = excluded.serialization;

-- name: find_event
SELECT value, serialization FROM workflow_events WHERE workflow_uuid = ?1 AND key = ?2;

-- name: find_set_events
-- Those of the events in ?1 (a JSON array of pairs of workflow and key) that have a value.
SELECT e.workflow_uuid, e.key
FROM json_each(?1) AS r
JOIN workflow_events AS e ON e.workflow_uuid = json_extract(r.value, '$[0]') AND e.key = json_extract(r.value, '$[1]');

-- name: list_events
SELECT key, value, serialization FROM workflow_events WHERE workflow_uuid = ?1 ORDER BY key;
