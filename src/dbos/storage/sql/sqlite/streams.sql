-- Streams. Keys of a record in ?1: w workflow, t owner token, i step id, s whether a step row is written with it, k key,
-- v value, z serialization, x where it has to stand if no step row is written with it,
-- -1 if it is there already.

-- name: write_stream_entries
-- Where the token owns the workflow; each behind the last one, in the order of the records, without gaps. With a step
-- row only while that is not there, which is written next, and else only at its place: repeating it after a lost answer
-- changes nothing.
INSERT INTO streams (workflow_uuid, key, value, "offset", function_id, serialization)
SELECT e.w, e.k, e.v, e.top + row_number() OVER (PARTITION BY e.w, e.k ORDER BY e.n), e.i, e.z
FROM (
  SELECT f.*, f.top + row_number() OVER (PARTITION BY f.w, f.k ORDER BY f.n) AS place
  FROM (
    SELECT w.workflow_uuid AS w, json_extract(r.value, '$.k') AS k, json_extract(r.value, '$.v') AS v,
           json_extract(r.value, '$.i') AS i, json_extract(r.value, '$.z') AS z, json_extract(r.value, '$.x') AS x, r.key AS n,
           (SELECT COALESCE(max(s."offset"), -1) FROM streams AS s
            WHERE s.workflow_uuid = w.workflow_uuid AND s.key = json_extract(r.value, '$.k')) AS top
    FROM json_each(?1) AS r
    JOIN workflow_status AS w ON w.workflow_uuid = json_extract(r.value, '$.w') AND w.owner_xid = json_extract(r.value, '$.t')
    WHERE json_extract(r.value, '$.x') IS NOT -1 AND (NOT json_extract(r.value, '$.s') OR NOT EXISTS (
      SELECT 1 FROM operation_outputs AS o
      WHERE o.workflow_uuid = w.workflow_uuid AND o.function_id = json_extract(r.value, '$.i')))
  ) AS f
) AS e
WHERE e.x IS NULL OR e.x = e.place
ORDER BY e.n;

-- name: write_stream_entry
-- The same for one: the fields as parameters, in the order of the keys.
INSERT INTO streams (workflow_uuid, key, value, "offset", function_id, serialization)
SELECT e.w, ?5, ?6, e.place, ?3, ?7
FROM (
  SELECT w.workflow_uuid AS w,
         (SELECT COALESCE(max(s."offset"), -1) + 1 FROM streams AS s WHERE s.workflow_uuid = ?1 AND s.key = ?5) AS place
  FROM workflow_status AS w
  WHERE w.workflow_uuid = ?1 AND w.owner_xid = ?2 AND (NOT ?4 OR NOT EXISTS (
    SELECT 1 FROM operation_outputs WHERE workflow_uuid = ?1 AND function_id = ?3))
) AS e
WHERE ?8 IS NULL OR ?8 = e.place;

-- name: read_stream
-- Up to ?4 entries of stream ?2 of workflow ?1 from offset ?3 on, each with the status of the workflow; without any a
-- row for the workflow, and whether the stream ends with a marker before that offset.
SELECT w.status, s."offset", s.value, s.serialization,
       CASE WHEN s."offset" IS NULL THEN COALESCE((
         SELECT t."offset" < ?3 AND t.value = '"__DBOS_STREAM_CLOSED__"' AND t.serialization = 'portable_json' FROM streams AS t
         WHERE t.workflow_uuid = ?1 AND t.key = ?2 ORDER BY t."offset" DESC LIMIT 1), 0) ELSE 0 END
FROM workflow_status AS w
LEFT JOIN streams AS s ON s.workflow_uuid = w.workflow_uuid AND s.key = ?2 AND s."offset" >= ?3 AND s."offset" < ?3 + ?4
WHERE w.workflow_uuid = ?1
ORDER BY s."offset";

-- name: has_marker
SELECT EXISTS (
  SELECT 1 FROM streams
  WHERE workflow_uuid = ?1 AND key = ?2 AND value = '"__DBOS_STREAM_CLOSED__"' AND serialization = 'portable_json');

-- name: find_stream_entry
SELECT value, serialization, function_id FROM streams WHERE workflow_uuid = ?1 AND key = ?2 AND "offset" = ?3;

-- name: find_stream_ends
-- The last offset of each of the streams in ?1 (a JSON array of pairs of workflow and key) that has entries.
SELECT w, k, top
FROM (
  SELECT json_extract(r.value, '$[0]') AS w, json_extract(r.value, '$[1]') AS k,
         (SELECT max(s."offset") FROM streams AS s
          WHERE s.workflow_uuid = json_extract(r.value, '$[0]') AND s.key = json_extract(r.value, '$[1]')) AS top
  FROM json_each(?1) AS r
)
WHERE top IS NOT NULL;
