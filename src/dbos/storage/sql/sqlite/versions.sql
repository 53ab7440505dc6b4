-- Application versions: the rows of application_versions, "latest" being the highest timestamp.

-- name: claim_version
-- Take over an unowned row of this name (?1) for this application (?2); its timestamps stay.
UPDATE application_versions SET application_name = ?2 WHERE version_name = ?1 AND application_name IS NULL;

-- name: insert_version
-- Register a version unless the name is known, to whomever it belongs. No conflict target on purpose: the uniqueness
-- of version_name is announced to move to the two partial indexes.
INSERT OR IGNORE INTO application_versions (version_id, version_name, version_timestamp, created_at, application_name)
VALUES (?1, ?2, ?3, ?3, ?4);

-- name: find_version
SELECT application_name FROM application_versions WHERE version_name = ?1;

-- name: list_versions
-- Own and unowned versions, or all for NULL, newest first.
SELECT version_id, version_name, version_timestamp, created_at, application_name
FROM application_versions
WHERE ?1 IS NULL OR application_name = ?1 OR application_name IS NULL
ORDER BY version_timestamp DESC, created_at DESC
LIMIT ?2;

-- name: promote_version
UPDATE application_versions
SET version_timestamp = ?2, application_name = COALESCE(application_name, ?3)
WHERE version_name = ?1;
