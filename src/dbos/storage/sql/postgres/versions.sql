-- Application versions: the rows of application_versions, "latest" being the highest timestamp.

-- name: claim_version
-- Take over an unowned row of this name ($1) for this application ($2); its timestamps stay.
UPDATE {schema}.application_versions SET application_name = $2::text
WHERE version_name = $1::text AND application_name IS NULL;

-- name: insert_version
-- Register a version unless the name is known, to whomever it belongs. No conflict target on purpose: the uniqueness
-- of version_name is announced to move to the two partial indexes. The timestamps are the database's.
INSERT INTO {schema}.application_versions (version_id, version_name, application_name)
SELECT $1::text, $2::text, $4::text WHERE $3::int8 IS NOT NULL
ON CONFLICT DO NOTHING;

-- name: find_version
SELECT application_name FROM {schema}.application_versions WHERE version_name = $1::text;

-- name: list_versions
-- Own and unowned versions, or all for NULL, newest first.
SELECT version_id, version_name, version_timestamp, created_at, application_name
FROM {schema}.application_versions
WHERE $1::text IS NULL OR application_name = $1::text OR application_name IS NULL
ORDER BY version_timestamp DESC, created_at DESC
LIMIT $2::int8;

-- name: promote_version
UPDATE {schema}.application_versions
SET version_timestamp = $2::int8, application_name = COALESCE(application_name, $3::text)
WHERE version_name = $1::text;
