-- Giving the rows of an application to another one: of the application ?1 (NULL is none), and with ?3 also those
-- of nobody. Each statement finds nothing more to do when it is repeated.

-- name: rename_queues
UPDATE queues SET application_name = ?2
WHERE (application_name = ?1 OR (?3 AND application_name IS NULL));

-- name: rename_schedules
UPDATE workflow_schedules SET application_name = ?2
WHERE (application_name = ?1 OR (?3 AND application_name IS NULL));

-- name: rename_versions
UPDATE application_versions SET application_name = ?2
WHERE (application_name = ?1 OR (?3 AND application_name IS NULL));

-- name: rename_live_workflows
UPDATE workflow_status SET application_name = ?2
WHERE status IN ('PENDING', 'ENQUEUED', 'DELAYED')
  AND (application_name = ?1 OR (?3 AND application_name IS NULL));

-- name: find_renamed_workflows
-- The last of the next ?4 ids after ?3; here ?2 is whether those of nobody count.
SELECT max(workflow_uuid) FROM (
  SELECT workflow_uuid FROM workflow_status
  WHERE workflow_uuid > ?3 AND (application_name = ?1 OR (?2 AND application_name IS NULL))
  ORDER BY workflow_uuid LIMIT ?4
) AS next;

-- name: rename_workflows
-- Those with ids after ?4 up to ?5.
UPDATE workflow_status SET application_name = ?2
WHERE workflow_uuid > ?4 AND workflow_uuid <= ?5
  AND (application_name = ?1 OR (?3 AND application_name IS NULL));

-- name: find_renamed_steps
SELECT max(workflow_uuid) FROM (
  SELECT DISTINCT workflow_uuid FROM operation_outputs
  WHERE workflow_uuid > ?3 AND (application_name = ?1 OR (?2 AND application_name IS NULL))
  ORDER BY workflow_uuid LIMIT ?4
) AS next;

-- name: rename_steps
UPDATE operation_outputs SET application_name = ?2
WHERE workflow_uuid > ?4 AND workflow_uuid <= ?5
  AND (application_name = ?1 OR (?3 AND application_name IS NULL));
