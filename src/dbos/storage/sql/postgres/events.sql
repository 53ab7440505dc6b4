-- Events. Keys of a record in $1: w workflow, t owner token, i step id, s whether a step row is written with it, k key,
-- v value, z serialization.

-- name: set_events
-- Where the token owns the workflow. With a step row only if this transaction has written it, just before: repeating it
-- after a lost answer changes nothing. Rows are locked in the order of the ids, as by `record_steps`.
WITH owned AS MATERIALIZED (
  SELECT input.*
  FROM (
    SELECT * FROM ROWS FROM (
      json_to_recordset($1::json) AS (w text, t text, i int4, s boolean, k text, v text, z text)
    ) WITH ORDINALITY AS r (w, t, i, s, k, v, z, n)
    ORDER BY w
  ) AS input
  CROSS JOIN LATERAL (
    SELECT owner_xid FROM {schema}.workflow_status WHERE workflow_uuid = input.w FOR NO KEY UPDATE
  ) AS status
  LEFT JOIN LATERAL (
    SELECT xmin AS writer FROM {schema}.operation_outputs WHERE workflow_uuid = input.w AND function_id = input.i
  ) AS step ON input.s
  WHERE status.owner_xid = input.t AND (NOT input.s OR step.writer = pg_current_xact_id()::xid)
), published AS (
  INSERT INTO {schema}.workflow_events (workflow_uuid, key, value, serialization)
  SELECT DISTINCT ON (w, k) w, k, v, z FROM owned ORDER BY w, k, n DESC
  ON CONFLICT (workflow_uuid, key) DO UPDATE SET value = excluded.value, serialization = excluded.serialization
)
INSERT INTO {schema}.workflow_events_history (workflow_uuid, function_id, key, value, serialization)
SELECT w, i, k, v, z FROM owned
ON CONFLICT (workflow_uuid, function_id, key) DO UPDATE SET value = excluded.value, serialization = excluded.serialization;

-- name: set_event
-- The same for one: the fields as parameters, in the order of the keys.
WITH owned AS MATERIALIZED (
  SELECT owner_xid FROM {schema}.workflow_status WHERE workflow_uuid = $1::text FOR NO KEY UPDATE
), published AS (
  INSERT INTO {schema}.workflow_events_history (workflow_uuid, function_id, key, value, serialization)
  SELECT $1::text, $3::int4, $5::text, $6::text, $7::text
  FROM owned
  LEFT JOIN LATERAL (
    SELECT xmin AS writer FROM {schema}.operation_outputs WHERE workflow_uuid = $1::text AND function_id = $3::int4
  ) AS step ON $4::boolean
  WHERE owner_xid = $2::text AND (NOT $4::boolean OR step.writer = pg_current_xact_id()::xid)
  ON CONFLICT (workflow_uuid, function_id, key) DO UPDATE SET value = excluded.value, serialization = excluded.serialization
  RETURNING workflow_uuid, key, value, serialization
)
INSERT INTO {schema}.workflow_events (workflow_uuid, key, value, serialization)
SELECT workflow_uuid, key, value, serialization FROM published
ON CONFLICT (workflow_uuid, key) DO UPDATE SET value = excluded.value, serialization = excluded.serialization;

-- name: find_event
SELECT value, serialization FROM {schema}.workflow_events WHERE workflow_uuid = $1::text AND key = $2::text;

-- name: find_set_events
-- Those of the events in $1 (a JSON array of pairs of workflow and key) that have a value.
SELECT e.workflow_uuid, e.key
FROM json_array_elements($1::json) AS r (pair)
CROSS JOIN LATERAL (
  SELECT workflow_uuid, key FROM {schema}.workflow_events WHERE workflow_uuid = r.pair ->> 0 AND key = r.pair ->> 1
) AS e;

-- name: list_events
SELECT key, value, serialization FROM {schema}.workflow_events WHERE workflow_uuid = $1::text ORDER BY key;
