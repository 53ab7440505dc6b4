-- Messages: the rows of notifications. Keys of a message that is sent in $1: u id, d destination, p topic, v message,
-- z serialization, g number of the record that it belongs to; and in the first message of a record who sends it:
-- w workflow, t owner token, i step id, and if a step row is to be written n its name, b began (ms), f finished (ms),
-- a application.

-- name: send_messages
-- All messages of a record or none: only if every recipient is there, the token owns the workflow that sends, and its
-- step has no row. The step row is written here, so that it cannot be there without the messages. Repeating it after a
-- lost answer changes nothing. A count short of the number of messages sends each record to its own verdict.
-- Workflows that send are locked in the order of the ids. Recipients are locked so that they cannot be deleted, which
-- hinders nobody else.
-- Equal entries of the index stand in the order of the rows, so the latest message is among the last ones, without
-- reading the whole mailbox; a row that took the place of a deleted one may stand elsewhere, but not within the
-- millisecond in which the one before it was written.
WITH checked AS MATERIALIZED (
  SELECT input.*,
    bool_and(recipient.is_there IS TRUE
      AND (input.w IS NULL OR owner.owner_xid IS NOT DISTINCT FROM input.t)
      AND (input.n IS NULL OR step.is_recorded IS NULL)) OVER (PARTITION BY input.g) AS accepted,
    GREATEST((EXTRACT(epoch FROM now()) * 1000.0)::bigint, last.ms + 1)
      + row_number() OVER (PARTITION BY input.d, input.p ORDER BY input.k) - 1 AS ms
  FROM (
    SELECT * FROM ROWS FROM (
      json_to_recordset($1::json) AS (
        w text, t text, i int4, n text, b int8, f int8, a text, u text, d text, p text, v text, z text, g int4)
    ) WITH ORDINALITY AS r (w, t, i, n, b, f, a, u, d, p, v, z, g, k)
    ORDER BY w, k
  ) AS input
  LEFT JOIN LATERAL (
    SELECT TRUE AS is_there FROM {schema}.workflow_status WHERE workflow_uuid = input.d FOR KEY SHARE
  ) AS recipient ON TRUE
  LEFT JOIN LATERAL (
    SELECT owner_xid FROM {schema}.workflow_status WHERE workflow_uuid = input.w FOR NO KEY UPDATE
  ) AS owner ON TRUE
  LEFT JOIN LATERAL (
    SELECT TRUE AS is_recorded FROM {schema}.operation_outputs WHERE workflow_uuid = input.w AND function_id = input.i
  ) AS step ON TRUE
  LEFT JOIN LATERAL (
    SELECT max(created_at_epoch_ms) AS ms FROM (
      SELECT created_at_epoch_ms FROM {schema}.notifications
      WHERE destination_uuid = input.d AND topic >= input.p AND topic <= input.p
      ORDER BY topic DESC LIMIT 16
    ) AS latest
  ) AS last ON TRUE
), recorded AS (
  INSERT INTO {schema}.operation_outputs
    (workflow_uuid, function_id, function_name, started_at_epoch_ms, completed_at_epoch_ms, application_name,
     retention_timestamp)
  SELECT w, i, n, b, f, a, $2::int8 FROM checked WHERE accepted AND n IS NOT NULL
  ON CONFLICT (workflow_uuid, function_id) DO NOTHING
), sent AS (
  -- In the order of the ids, so that two that send with the same keys do not wait for each other.
  INSERT INTO {schema}.notifications
    (message_uuid, destination_uuid, topic, message, serialization, created_at_epoch_ms)
  SELECT u, d, p, v, z, ms FROM checked WHERE accepted ORDER BY u
  ON CONFLICT (message_uuid) DO NOTHING
)
SELECT FROM checked WHERE accepted;

-- name: send_message
-- The same for one message: its fields as parameters, in the order of the keys in `records`.
WITH checked AS MATERIALIZED (
  SELECT GREATEST((EXTRACT(epoch FROM now()) * 1000.0)::bigint, last.ms + 1) AS ms
  FROM (
    SELECT workflow_uuid FROM {schema}.workflow_status WHERE workflow_uuid = $9::text FOR KEY SHARE
  ) AS recipient
  LEFT JOIN LATERAL (
    SELECT owner_xid FROM {schema}.workflow_status WHERE workflow_uuid = $1::text FOR NO KEY UPDATE
  ) AS owner ON TRUE
  LEFT JOIN LATERAL (
    SELECT max(created_at_epoch_ms) AS ms FROM (
      SELECT created_at_epoch_ms FROM {schema}.notifications
      WHERE destination_uuid = $9::text AND topic >= $10::text AND topic <= $10::text
      ORDER BY topic DESC LIMIT 16
    ) AS latest
  ) AS last ON TRUE
  WHERE ($1::text IS NULL OR owner.owner_xid IS NOT DISTINCT FROM $2::text)
    AND $13::int4 IS NOT NULL
), recorded AS (
  INSERT INTO {schema}.operation_outputs
    (workflow_uuid, function_id, function_name, started_at_epoch_ms, completed_at_epoch_ms, application_name,
     retention_timestamp)
  SELECT $1::text, $3::int4, $4::text, $5::int8, $6::int8, $7::text, $14::int8 FROM checked WHERE $4::text IS NOT NULL
  ON CONFLICT (workflow_uuid, function_id) DO NOTHING
  RETURNING 1
), sent AS (
  INSERT INTO {schema}.notifications
    (message_uuid, destination_uuid, topic, message, serialization, created_at_epoch_ms)
  SELECT $8::text, $9::text, $10::text, $11::text, $12::text, ms FROM checked
  WHERE $4::text IS NULL OR EXISTS (SELECT FROM recorded)
  ON CONFLICT (message_uuid) DO NOTHING
)
SELECT FROM checked WHERE $4::text IS NULL OR EXISTS (SELECT FROM recorded);

-- name: consume_messages
-- Keys of a record in $1: w workflow, t owner token, i step id, n name, e error, z serialization of the error, b began
-- (ms), f finished (ms), a application, u id of the message, p topic under which no older one may wait, if that matters;
-- and of a second step, the deadline, if it has no row yet: j id, m name, o output, y serialization, x began, h finished.
-- The message is marked and its text becomes the value of the step, both or none: only if the token owns the workflow,
-- the step has no row, and nobody has consumed the message.
WITH owned AS MATERIALIZED (
  SELECT DISTINCT ON (input.u) input.*, waiting.message, waiting.serialization
  FROM (
    SELECT * FROM json_to_recordset($1::json) AS r (
      w text, t text, i int4, n text, e text, z text, b int8, f int8, a text, u text, p text,
      j int4, m text, o text, y text, x int8, h int8)
    ORDER BY w, i
  ) AS input
  CROSS JOIN LATERAL (
    SELECT owner_xid FROM {schema}.workflow_status WHERE workflow_uuid = input.w FOR NO KEY UPDATE
  ) AS status
  CROSS JOIN LATERAL (
    SELECT message, serialization, created_at_epoch_ms AS ms, ctid AS place FROM {schema}.notifications
    WHERE message_uuid = input.u AND destination_uuid || '' = input.w AND NOT consumed FOR NO KEY UPDATE
  ) AS waiting
  LEFT JOIN LATERAL (
    SELECT TRUE AS is_recorded FROM {schema}.operation_outputs WHERE workflow_uuid = input.w AND function_id = input.i
  ) AS step ON TRUE
  WHERE status.owner_xid = input.t AND step.is_recorded IS NULL
    AND (input.p IS NULL OR NOT EXISTS (
      SELECT FROM {schema}.notifications AS o
      WHERE o.destination_uuid = input.w AND o.topic = input.p AND NOT o.consumed
        AND (o.created_at_epoch_ms, o.ctid) < (waiting.ms, waiting.place)))
  ORDER BY input.u
), marked AS (
  UPDATE {schema}.notifications
  SET consumed = TRUE, consumed_by_function_id = ((SELECT jsonb_object_agg(u, i) FROM owned) ->> message_uuid)::int4
  WHERE message_uuid = ANY (ARRAY(SELECT u FROM owned))
), waited AS (
  INSERT INTO {schema}.operation_outputs
    (workflow_uuid, function_id, function_name, output, serialization, started_at_epoch_ms, completed_at_epoch_ms,
     application_name, retention_timestamp)
  SELECT w, j, m, o, y, x, h, a, $2::int8 FROM owned WHERE j IS NOT NULL
  ON CONFLICT (workflow_uuid, function_id) DO NOTHING
)
INSERT INTO {schema}.operation_outputs
  (workflow_uuid, function_id, function_name, output, error, serialization, started_at_epoch_ms,
   completed_at_epoch_ms, application_name, retention_timestamp)
SELECT w, i, n, CASE WHEN e IS NULL THEN message END, e, CASE WHEN e IS NULL THEN serialization ELSE z END, b, f, a,
  $2::int8
FROM owned;

-- name: consume_message
-- The same for one: the fields as parameters, in the order of the keys.
WITH owned AS MATERIALIZED (
  SELECT waiting.message, waiting.serialization
  FROM (
    SELECT owner_xid FROM {schema}.workflow_status WHERE workflow_uuid = $1::text FOR NO KEY UPDATE
  ) AS status
  CROSS JOIN LATERAL (
    SELECT message, serialization, created_at_epoch_ms AS ms, ctid AS place FROM {schema}.notifications
    WHERE message_uuid = $10::text AND destination_uuid || '' = $1::text AND NOT consumed FOR NO KEY UPDATE
  ) AS waiting
  WHERE status.owner_xid = $2::text
    AND ($11::text IS NULL OR NOT EXISTS (
      SELECT FROM {schema}.notifications AS o
      WHERE o.destination_uuid = $1::text AND o.topic = $11::text AND NOT o.consumed
        AND (o.created_at_epoch_ms, o.ctid) < (waiting.ms, waiting.place)))
), recorded AS (
  INSERT INTO {schema}.operation_outputs
    (workflow_uuid, function_id, function_name, output, error, serialization, started_at_epoch_ms,
     completed_at_epoch_ms, application_name, retention_timestamp)
  SELECT $1::text, $3::int4, $4::text, CASE WHEN $5::text IS NULL THEN message END, $5::text,
    CASE WHEN $5::text IS NULL THEN serialization ELSE $6::text END, $7::int8, $8::int8, $9::text, $18::int8
  FROM owned
  ON CONFLICT (workflow_uuid, function_id) DO NOTHING
  RETURNING 1
), waited AS (
  INSERT INTO {schema}.operation_outputs
    (workflow_uuid, function_id, function_name, output, serialization, started_at_epoch_ms, completed_at_epoch_ms,
     application_name, retention_timestamp)
  SELECT $1::text, $12::int4, $13::text, $14::text, $15::text, $16::int8, $17::int8, $9::text, $18::int8
  FROM recorded WHERE $12::int4 IS NOT NULL
  ON CONFLICT (workflow_uuid, function_id) DO NOTHING
)
UPDATE {schema}.notifications SET consumed = TRUE, consumed_by_function_id = $3::int4
WHERE message_uuid = $10::text AND EXISTS (SELECT FROM recorded);

-- name: find_messages
SELECT message_uuid, message, serialization FROM {schema}.notifications
WHERE destination_uuid = $1::text AND topic = $2::text AND NOT consumed
ORDER BY created_at_epoch_ms, ctid
LIMIT $3::int8;

-- name: list_messages
-- Up to $2 messages of workflow $1 behind the first $3, with their texts if $4; lines that end in a mark are there only
-- if a listing asks for what it names (see storage/listing.py).
SELECT message_uuid, topic, CASE WHEN $4::boolean THEN message END, serialization, created_at_epoch_ms, consumed,
       consumed_by_function_id
FROM {schema}.notifications
WHERE destination_uuid = $1::text
  AND topic = ANY (ARRAY(SELECT json_array_elements_text($5::json))) -- if topics
  AND consumed -- if received
  AND NOT consumed -- if waiting
ORDER BY created_at_epoch_ms, ctid
LIMIT $2::int8 OFFSET $3::int8;

-- name: find_filled_mailboxes
-- Those of the pairs of workflow and topic in $1 (a JSON array) under which a message waits.
SELECT r.pair ->> 0, r.pair ->> 1
FROM json_array_elements($1::json) AS r (pair)
CROSS JOIN LATERAL (
  SELECT 1 FROM {schema}.notifications
  WHERE destination_uuid = r.pair ->> 0 AND topic = r.pair ->> 1 AND NOT consumed LIMIT 1
) AS waiting;

-- name: find_message_ids
SELECT message_uuid FROM {schema}.notifications
WHERE message_uuid = ANY (ARRAY(SELECT json_array_elements_text($1::json)));

-- name: find_forks
-- With each workflow in $1 (a JSON array of ids) itself and what was forked from it, directly or not.
WITH RECURSIVE family (origin, workflow_uuid) AS (
  SELECT id, id FROM json_array_elements_text($1::json) AS r (id)
  UNION
  SELECT f.origin, w.workflow_uuid
  FROM family AS f
  CROSS JOIN LATERAL (
    SELECT workflow_uuid FROM {schema}.workflow_status WHERE forked_from = f.workflow_uuid
  ) AS w
)
SELECT origin, workflow_uuid FROM family;
