-- Streams. Keys of a record in $1: w workflow, t owner token, i step id, s whether a step row is written with it, k key,
-- v value, z serialization, x where it has to stand if no step row is written with it,
-- -1 if it is there already.

-- name: write_stream_entries
-- Where the token owns the workflow; each behind the last one, in the order of the records, without gaps. With a step
-- row only if this transaction has written it, just before, and else only at its place: repeating it after a lost answer
-- changes nothing. Rows are locked in the order of the ids, as by `record_steps`.
WITH owned AS MATERIALIZED (
  SELECT input.*
  FROM (
    SELECT * FROM ROWS FROM (
      json_to_recordset($1::json) AS (w text, t text, i int4, s boolean, k text, v text, z text, x int4)
    ) WITH ORDINALITY AS r (w, t, i, s, k, v, z, x, n)
    ORDER BY w
  ) AS input
  CROSS JOIN LATERAL (
    SELECT owner_xid FROM {schema}.workflow_status WHERE workflow_uuid = input.w FOR NO KEY UPDATE
  ) AS status
  LEFT JOIN LATERAL (
    SELECT xmin AS writer FROM {schema}.operation_outputs WHERE workflow_uuid = input.w AND function_id = input.i
  ) AS step ON input.s
  WHERE status.owner_xid = input.t AND (NOT input.s OR step.writer = pg_current_xact_id()::xid)
    AND input.x IS DISTINCT FROM -1
), placed AS (
  SELECT owned.*, top."offset" AS top, top."offset" + row_number() OVER (PARTITION BY w, k ORDER BY n) AS place
  FROM owned
  CROSS JOIN LATERAL (
    SELECT COALESCE(max(s."offset"), -1) AS "offset" FROM {schema}.streams AS s
    WHERE s.workflow_uuid = owned.w AND s.key = owned.k
  ) AS top
)
INSERT INTO {schema}.streams (workflow_uuid, key, value, "offset", function_id, serialization)
SELECT w, k, v, top + row_number() OVER (PARTITION BY w, k ORDER BY n), i, z
FROM placed
WHERE x IS NULL OR x = place;

-- name: write_stream_entry
-- The same for one: the fields as parameters, in the order of the keys.
WITH owned AS MATERIALIZED (
  SELECT owner_xid FROM {schema}.workflow_status WHERE workflow_uuid = $1::text FOR NO KEY UPDATE
), placed AS (
  SELECT (SELECT COALESCE(max("offset"), -1) + 1 FROM {schema}.streams WHERE workflow_uuid = $1::text AND key = $5::text) AS place
  FROM owned
  LEFT JOIN LATERAL (
    SELECT xmin AS writer FROM {schema}.operation_outputs WHERE workflow_uuid = $1::text AND function_id = $3::int4
  ) AS step ON $4::boolean
  WHERE owner_xid = $2::text AND (NOT $4::boolean OR step.writer = pg_current_xact_id()::xid)
)
INSERT INTO {schema}.streams (workflow_uuid, key, value, "offset", function_id, serialization)
SELECT $1::text, $5::text, $6::text, place, $3::int4, $7::text
FROM placed
WHERE $8::int4 IS NULL OR $8::int4 = place;

-- name: read_stream
-- Up to $4 entries of stream $2 of workflow $1 from offset $3 on, each with the status of the workflow; without any a
-- row for the workflow, and whether the stream ends with a marker before that offset.
SELECT w.status, s."offset", s.value, s.serialization,
       CASE WHEN s."offset" IS NULL THEN (
         SELECT t."offset" < $3::int8 AND t.value = '"__DBOS_STREAM_CLOSED__"' AND t.serialization = 'portable_json'
         FROM {schema}.streams AS t
         WHERE t.workflow_uuid = $1::text AND t.key = $2::text ORDER BY t."offset" DESC LIMIT 1) END
FROM {schema}.workflow_status AS w
LEFT JOIN LATERAL (
  SELECT "offset", value, serialization FROM {schema}.streams
  WHERE workflow_uuid = $1::text AND key = $2::text AND "offset" >= $3::int8 AND "offset" < $3::int8 + $4::int8
  ORDER BY "offset"
) AS s ON TRUE
WHERE w.workflow_uuid = $1::text
ORDER BY s."offset";

-- name: has_marker
SELECT EXISTS (
  SELECT FROM {schema}.streams
  WHERE workflow_uuid = $1::text AND key = $2::text
    AND value = '"__DBOS_STREAM_CLOSED__"' AND serialization = 'portable_json');

-- name: find_stream_entry
SELECT value, serialization, function_id FROM {schema}.streams
WHERE workflow_uuid = $1::text AND key = $2::text AND "offset" = $3::int4;

-- name: find_stream_ends
-- The last offset of each of the streams in $1 (a JSON array of pairs of workflow and key) that has entries.
SELECT r.pair ->> 0, r.pair ->> 1, s."offset"
FROM json_array_elements($1::json) AS r (pair)
CROSS JOIN LATERAL (
  SELECT "offset" FROM {schema}.streams WHERE workflow_uuid = r.pair ->> 0 AND key = r.pair ->> 1
  ORDER BY "offset" DESC LIMIT 1
) AS s;
