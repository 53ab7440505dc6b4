-- Messages: the rows of notifications. Keys of a message that is sent in ?1: u id, d destination, p topic, v message,
-- z serialization, g number of the record that it belongs to; and in the first message of a record who sends it:
-- w workflow, t owner token, i step id, and if a step row is to be written n its name, b began (ms), f finished (ms),
-- a application.

-- name: send_messages
-- All messages of a record or none: only if every recipient is there, the token owns the workflow that sends, and its
-- step has no row. The step row is written here, so that it cannot be there without the messages. Repeating it after a
-- lost answer changes nothing. A count that is short sends each record to its own verdict.
-- Rows of one mailbox stand in its index in their order, so its last message is found by one search.
INSERT INTO notifications (message_uuid, destination_uuid, topic, message, serialization, created_at_epoch_ms)
SELECT u, d, p, v, z,
  MAX(?2, COALESCE((
    SELECT m.created_at_epoch_ms + 1 FROM notifications AS m WHERE m.destination_uuid = d AND m.topic = p
    ORDER BY m.rowid DESC LIMIT 1), 0)) + ROW_NUMBER() OVER (PARTITION BY d, p ORDER BY k) - 1
FROM (
  SELECT r.key AS k, json_extract(r.value, '$.u') AS u, json_extract(r.value, '$.d') AS d, json_extract(r.value, '$.p') AS p,
    json_extract(r.value, '$.v') AS v, json_extract(r.value, '$.z') AS z,
    MIN(
      EXISTS (SELECT 1 FROM workflow_status AS s WHERE s.workflow_uuid = json_extract(r.value, '$.d'))
      AND (json_extract(r.value, '$.w') IS NULL OR EXISTS (
        SELECT 1 FROM workflow_status AS s
        WHERE s.workflow_uuid = json_extract(r.value, '$.w') AND s.owner_xid = json_extract(r.value, '$.t')))
      AND (json_extract(r.value, '$.n') IS NULL OR NOT EXISTS (
        SELECT 1 FROM operation_outputs AS o
        WHERE o.workflow_uuid = json_extract(r.value, '$.w') AND o.function_id = json_extract(r.value, '$.i')))
    ) OVER (PARTITION BY json_extract(r.value, '$.g')) AS accepted
  FROM json_each(?1) AS r
) AS input
WHERE accepted
ORDER BY k
ON CONFLICT (message_uuid) DO NOTHING;
INSERT INTO operation_outputs
  (workflow_uuid, function_id, function_name, started_at_epoch_ms, completed_at_epoch_ms, application_name,
   retention_timestamp)
SELECT w, i, n, b, f, a, ?2
FROM (
  SELECT json_extract(r.value, '$.w') AS w, json_extract(r.value, '$.t') AS t, json_extract(r.value, '$.i') AS i,
    json_extract(r.value, '$.n') AS n, json_extract(r.value, '$.b') AS b, json_extract(r.value, '$.f') AS f,
    json_extract(r.value, '$.a') AS a,
    MIN(EXISTS (SELECT 1 FROM workflow_status AS s WHERE s.workflow_uuid = json_extract(r.value, '$.d')))
      OVER (PARTITION BY json_extract(r.value, '$.g')) AS accepted
  FROM json_each(?1) AS r
) AS input
WHERE accepted AND n IS NOT NULL AND EXISTS (
  SELECT 1 FROM workflow_status AS s WHERE s.workflow_uuid = w AND s.owner_xid = t)
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;

-- name: send_message
-- The same for one message: its fields as parameters, in the order of the keys in `records`.
INSERT INTO notifications (message_uuid, destination_uuid, topic, message, serialization, created_at_epoch_ms)
SELECT ?8, s.workflow_uuid, ?10, ?11, ?12,
  MAX(?14, COALESCE((
    SELECT m.created_at_epoch_ms + 1 FROM notifications AS m WHERE m.destination_uuid = ?9 AND m.topic = ?10
    ORDER BY m.rowid DESC LIMIT 1), 0))
FROM workflow_status AS s
WHERE s.workflow_uuid = ?9
  AND (?1 IS NULL OR EXISTS (SELECT 1 FROM workflow_status AS s WHERE s.workflow_uuid = ?1 AND s.owner_xid = ?2))
  AND (?4 IS NULL OR NOT EXISTS (
    SELECT 1 FROM operation_outputs AS o WHERE o.workflow_uuid = ?1 AND o.function_id = ?3))
ON CONFLICT (message_uuid) DO NOTHING;
INSERT INTO operation_outputs
  (workflow_uuid, function_id, function_name, started_at_epoch_ms, completed_at_epoch_ms, application_name,
   retention_timestamp)
SELECT s.workflow_uuid, ?3, ?4, ?5, ?6, ?7, ?14
FROM workflow_status AS s
WHERE s.workflow_uuid = ?1 AND s.owner_xid = ?2 AND ?4 IS NOT NULL
  AND EXISTS (SELECT 1 FROM workflow_status AS s WHERE s.workflow_uuid = ?9)
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;

-- name: consume_messages
-- Keys of a record in ?1: w workflow, t owner token, i step id, n name, e error, z serialization of the error, b began
-- (ms), f finished (ms), a application, u id of the message, p topic under which no older one may wait, if that matters;
-- and of a second step, the deadline, if it has no row yet: j id, m name, o output, y serialization, x began, h finished.
-- The message is marked and its text becomes the value of the step, both or none: only if the token owns the workflow,
-- the step has no row, and nobody has consumed the message.
UPDATE notifications SET consumed = TRUE, consumed_by_function_id = r.i
FROM (
  SELECT json_extract(value, '$.w') AS w, json_extract(value, '$.t') AS t, json_extract(value, '$.i') AS i,
    json_extract(value, '$.u') AS u, json_extract(value, '$.p') AS p
  FROM json_each(?1)
) AS r
WHERE notifications.message_uuid = r.u AND notifications.destination_uuid || '' = r.w AND NOT notifications.consumed
  AND EXISTS (SELECT 1 FROM workflow_status AS s WHERE s.workflow_uuid = r.w AND s.owner_xid = r.t)
  AND NOT EXISTS (SELECT 1 FROM operation_outputs AS o WHERE o.workflow_uuid = r.w AND o.function_id = r.i)
  AND (r.p IS NULL OR NOT EXISTS (
    SELECT 1 FROM notifications AS m
    WHERE m.destination_uuid = r.w AND m.topic = r.p AND NOT m.consumed
      AND (m.created_at_epoch_ms, m.rowid) < (notifications.created_at_epoch_ms, notifications.rowid)));
INSERT INTO operation_outputs
  (workflow_uuid, function_id, function_name, output, error, serialization, started_at_epoch_ms,
   completed_at_epoch_ms, application_name, retention_timestamp)
SELECT m.destination_uuid, r.i, r.n, CASE WHEN r.e IS NULL THEN m.message END, r.e,
  CASE WHEN r.e IS NULL THEN m.serialization ELSE r.z END, r.b, r.f, r.a, ?2
FROM (
  SELECT json_extract(value, '$.w') AS w, json_extract(value, '$.t') AS t, json_extract(value, '$.i') AS i,
    json_extract(value, '$.n') AS n, json_extract(value, '$.e') AS e, json_extract(value, '$.z') AS z,
    json_extract(value, '$.b') AS b, json_extract(value, '$.f') AS f, json_extract(value, '$.a') AS a,
    json_extract(value, '$.u') AS u
  FROM json_each(?1)
) AS r
JOIN notifications AS m ON m.message_uuid = r.u
WHERE m.destination_uuid || '' = r.w AND m.consumed AND m.consumed_by_function_id = r.i
  AND EXISTS (SELECT 1 FROM workflow_status AS s WHERE s.workflow_uuid = r.w AND s.owner_xid = r.t)
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;
INSERT INTO operation_outputs
  (workflow_uuid, function_id, function_name, output, serialization, started_at_epoch_ms, completed_at_epoch_ms,
   application_name, retention_timestamp)
SELECT m.destination_uuid, r.j, r.m, r.o, r.y, r.x, r.h, r.a, ?2
FROM (
  SELECT json_extract(value, '$.w') AS w, json_extract(value, '$.t') AS t, json_extract(value, '$.i') AS i,
    json_extract(value, '$.a') AS a, json_extract(value, '$.u') AS u, json_extract(value, '$.j') AS j,
    json_extract(value, '$.m') AS m, json_extract(value, '$.o') AS o, json_extract(value, '$.y') AS y,
    json_extract(value, '$.x') AS x, json_extract(value, '$.h') AS h
  FROM json_each(?1)
) AS r
JOIN notifications AS m ON m.message_uuid = r.u
WHERE r.j IS NOT NULL
  AND m.destination_uuid || '' = r.w AND m.consumed AND m.consumed_by_function_id = r.i
  AND EXISTS (SELECT 1 FROM workflow_status AS s WHERE s.workflow_uuid = r.w AND s.owner_xid = r.t)
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;

-- name: consume_message
-- The same for one: the fields as parameters, in the order of the keys.
UPDATE notifications SET consumed = TRUE, consumed_by_function_id = ?3
WHERE message_uuid = ?10 AND destination_uuid || '' = ?1 AND NOT consumed
  AND EXISTS (SELECT 1 FROM workflow_status AS s WHERE s.workflow_uuid = ?1 AND s.owner_xid = ?2)
  AND NOT EXISTS (SELECT 1 FROM operation_outputs AS o WHERE o.workflow_uuid = ?1 AND o.function_id = ?3)
  AND (?11 IS NULL OR NOT EXISTS (
    SELECT 1 FROM notifications AS m
    WHERE m.destination_uuid = ?1 AND m.topic = ?11 AND NOT m.consumed
      AND (m.created_at_epoch_ms, m.rowid) < (notifications.created_at_epoch_ms, notifications.rowid)));
INSERT INTO operation_outputs
  (workflow_uuid, function_id, function_name, output, error, serialization, started_at_epoch_ms,
   completed_at_epoch_ms, application_name, retention_timestamp)
SELECT m.destination_uuid, ?3, ?4, CASE WHEN ?5 IS NULL THEN m.message END, ?5,
  CASE WHEN ?5 IS NULL THEN m.serialization ELSE ?6 END, ?7, ?8, ?9, ?18
FROM notifications AS m
WHERE m.message_uuid = ?10 AND m.destination_uuid || '' = ?1 AND m.consumed AND m.consumed_by_function_id = ?3
  AND EXISTS (SELECT 1 FROM workflow_status AS s WHERE s.workflow_uuid = ?1 AND s.owner_xid = ?2)
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;
INSERT INTO operation_outputs
  (workflow_uuid, function_id, function_name, output, serialization, started_at_epoch_ms, completed_at_epoch_ms,
   application_name, retention_timestamp)
SELECT ?1, ?12, ?13, ?14, ?15, ?16, ?17, ?9, ?18
FROM notifications AS m
WHERE ?12 IS NOT NULL
  AND m.message_uuid = ?10 AND m.destination_uuid || '' = ?1 AND m.consumed AND m.consumed_by_function_id = ?3
  AND EXISTS (SELECT 1 FROM workflow_status AS s WHERE s.workflow_uuid = ?1 AND s.owner_xid = ?2)
ON CONFLICT (workflow_uuid, function_id) DO NOTHING;

-- name: find_messages
SELECT message_uuid, message, serialization FROM notifications
WHERE destination_uuid = ?1 AND topic = ?2 AND NOT consumed
ORDER BY created_at_epoch_ms, rowid
LIMIT ?3;

-- name: list_messages
-- Up to ?2 messages of workflow ?1 behind the first ?3, with their texts if ?4; lines that end in a mark are there only
-- if a listing asks for what it names (see storage/listing.py).
SELECT message_uuid, topic, CASE WHEN ?4 THEN message END, serialization, created_at_epoch_ms, consumed,
       consumed_by_function_id
FROM notifications
WHERE destination_uuid = ?1
  AND topic IN (SELECT value FROM json_each(?5)) -- if topics
  AND consumed -- if received
  AND NOT consumed -- if waiting
ORDER BY created_at_epoch_ms, rowid
LIMIT ?2 OFFSET ?3;

-- name: find_filled_mailboxes
-- Those of the pairs of workflow and topic in ?1 (a JSON array) under which a message waits.
SELECT json_extract(r.value, '$[0]'), json_extract(r.value, '$[1]')
FROM json_each(?1) AS r
WHERE EXISTS (
  SELECT 1 FROM notifications AS m
  WHERE m.destination_uuid = json_extract(r.value, '$[0]') AND m.topic = json_extract(r.value, '$[1]') AND NOT m.consumed);

-- name: find_message_ids
SELECT m.message_uuid FROM json_each(?1) AS r JOIN notifications AS m ON m.message_uuid = r.value;

-- name: find_forks
-- With each workflow in ?1 (a JSON array of ids) itself and what was forked from it, directly or not.
WITH RECURSIVE family (origin, workflow_uuid) AS (
  SELECT value, value FROM json_each(?1)
  UNION
  SELECT f.origin, w.workflow_uuid
  FROM family AS f
  JOIN workflow_status AS w ON w.forked_from = f.workflow_uuid
)
SELECT origin, workflow_uuid FROM family;
