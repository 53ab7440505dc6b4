-- Listings. Lines of parts/listing.sql that end in a mark are there only `if`, or `unless`, a listing asks for what the
-- mark names (see storage/listing.py); a number on such a line stands for that value. $1 is how many at most, $2 how
-- many are left out before them. The order is total, so that pages neither repeat nor skip.

-- name: list_workflows
-- include: parts/listing.sql
ORDER BY w.created_at, w.workflow_uuid
LIMIT $1::int8 OFFSET $2::int8;

-- name: list_newest_workflows
-- include: parts/listing.sql
ORDER BY w.created_at DESC, w.workflow_uuid DESC
LIMIT $1::int8 OFFSET $2::int8;
