-- Listings. Lines of parts/listing.sql that end in a mark are there only `if`, or `unless`, a listing asks for what the
-- mark names (see storage/listing.py); a number on such a line stands for that value. $1 is how many at most, $2 how
-- many are left out before them. The order is total, so that pages neither repeat nor skip.

-- name: list_workflows
-- include: parts/listing.sql
ORDER BY w.created_at
  + 0 -- if few
  , w.workflow_uuid
LIMIT $1::int8 OFFSET $2::int8;

-- name: list_newest_workflows
-- include: parts/listing.sql
ORDER BY w.created_at
  + 0 -- if few
  DESC, w.workflow_uuid DESC
LIMIT $1::int8 OFFSET $2::int8;

-- name: count_few
-- How many workflows the filters with an index find, up to $1: so many are sorted sooner than found in their order.
SELECT count(*) FROM (
  SELECT FROM {schema}.workflow_status AS w
  WHERE TRUE
    AND EXISTS (SELECT FROM json_array_elements_text($6::json) AS p (id) WHERE starts_with(w.workflow_uuid, p.id)) -- if workflow_id_prefixes
    AND w.workflow_uuid LIKE regexp_replace($6::json ->> 0, '([\\%_])', '\\\1', 'g') || '%' -- if workflow_id_prefixes if one_prefix
    AND w.status = 'PENDING' -- if pending
    AND w.status = 'DELAYED' -- if delayed
    AND w.status IN ('ENQUEUED', 'PENDING') -- if in_flight
    AND w.forked_from IS NOT NULL -- if forks_only
    AND w.completed_at >= $2::int8 AND w.completed_at IS NOT NULL -- if completed_from_ms
    AND w.completed_at <= $3::int8 AND w.completed_at IS NOT NULL -- if completed_until_ms
    AND w.started_at_epoch_ms >= $4::int8 AND w.started_at_epoch_ms IS NOT NULL -- if started_from_ms
    AND w.started_at_epoch_ms <= $5::int8 AND w.started_at_epoch_ms IS NOT NULL -- if started_until_ms
  LIMIT $1::int8
) AS found;
