-- Schedules. A change from workflow code goes with its step row into one transaction.

-- Parameters of a schedule: ?1 id, ?2 name, ?3 workflow, ?4 class, ?5 cron expression, ?6 context, ?7 whether missed
-- ticks are made up for, ?8 time zone, ?9 queue, ?10 application.

-- name: create_schedule
-- Insert unless the name is in use.
INSERT INTO workflow_schedules
  (schedule_id, schedule_name, workflow_name, workflow_class_name, schedule, context, automatic_backfill, cron_timezone,
   queue_name, application_name)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)
ON CONFLICT DO NOTHING;

-- name: replace_schedule
-- The definition of the schedule of that name; status and last tick stay. A schedule without owner gets one.
UPDATE workflow_schedules
SET schedule_id = ?1, workflow_name = ?3, workflow_class_name = ?4, schedule = ?5,
    context = ?6, automatic_backfill = ?7, cron_timezone = ?8, queue_name = ?9,
    application_name = COALESCE(application_name, ?10)
WHERE schedule_name = ?2;

-- name: find_schedule
SELECT schedule_id, schedule_name, workflow_name, workflow_class_name, schedule, status, context, last_fired_at,
       automatic_backfill, cron_timezone, queue_name, application_name
FROM workflow_schedules WHERE schedule_name = ?1;

-- name: lock_schedules
-- The schedules of these names (?1, a JSON array), in a transaction that has the write lock.
SELECT schedule_id, schedule_name, workflow_name, workflow_class_name, schedule, status, context, last_fired_at,
       automatic_backfill, cron_timezone, queue_name, application_name
FROM workflow_schedules
WHERE schedule_name IN (SELECT value FROM json_each(?1))
ORDER BY schedule_name;

-- name: list_schedules
-- Of the applications in ?1 (a JSON array) and of none; of all applications when ?1 is NULL.
SELECT schedule_id, schedule_name, workflow_name, workflow_class_name, schedule, status, context, last_fired_at,
       automatic_backfill, cron_timezone, queue_name, application_name
FROM workflow_schedules
WHERE ?1 IS NULL OR application_name IS NULL
   OR application_name IN (SELECT value FROM json_each(?1))
ORDER BY schedule_name;

-- name: delete_schedule
DELETE FROM workflow_schedules WHERE schedule_name = ?1;

-- name: set_schedule_status
UPDATE workflow_schedules SET status = ?2 WHERE schedule_name = ?1;

-- name: note_fired
UPDATE workflow_schedules SET last_fired_at = ?2 WHERE schedule_name = ?1;

-- name: find_busy_schedules
-- Those of the schedules in ?1 (a JSON array of names) of which a run has not ended.
SELECT DISTINCT schedule_name FROM workflow_status
WHERE schedule_name IN (SELECT value FROM json_each(?1))
  AND status IN ('ENQUEUED', 'DELAYED', 'PENDING');
