-- Schedules. A change from workflow code goes with its step row into one transaction.

-- Parameters of a schedule: $1 id, $2 name, $3 workflow, $4 class, $5 cron expression, $6 context, $7 whether missed
-- ticks are made up for, $8 time zone, $9 queue, $10 application.

-- name: create_schedule
-- Insert unless the name is in use.
INSERT INTO {schema}.workflow_schedules
  (schedule_id, schedule_name, workflow_name, workflow_class_name, schedule, context, automatic_backfill, cron_timezone,
   queue_name, application_name)
VALUES ($1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::boolean, $8::text, $9::text, $10::text)
ON CONFLICT DO NOTHING;

-- name: replace_schedule
-- The definition of the schedule of that name; status and last tick stay. A schedule without owner gets one.
UPDATE {schema}.workflow_schedules
SET schedule_id = $1::text, workflow_name = $3::text, workflow_class_name = $4::text, schedule = $5::text,
    context = $6::text, automatic_backfill = $7::boolean, cron_timezone = $8::text, queue_name = $9::text,
    application_name = COALESCE(application_name, $10::text)
WHERE schedule_name = $2::text;

-- name: find_schedule
SELECT schedule_id, schedule_name, workflow_name, workflow_class_name, schedule, status, context, last_fired_at,
       automatic_backfill, cron_timezone, queue_name, application_name
FROM {schema}.workflow_schedules WHERE schedule_name = $1::text;

-- name: lock_schedules
-- The schedules of these names ($1, a JSON array), kept as they are until the transaction ends.
SELECT schedule_id, schedule_name, workflow_name, workflow_class_name, schedule, status, context, last_fired_at,
       automatic_backfill, cron_timezone, queue_name, application_name
FROM {schema}.workflow_schedules
WHERE schedule_name = ANY (ARRAY(SELECT json_array_elements_text($1::json)))
ORDER BY schedule_name
FOR NO KEY UPDATE;

-- name: list_schedules
-- Of the applications in $1 (a JSON array) and of none; of all applications when $1 is NULL.
SELECT schedule_id, schedule_name, workflow_name, workflow_class_name, schedule, status, context, last_fired_at,
       automatic_backfill, cron_timezone, queue_name, application_name
FROM {schema}.workflow_schedules
WHERE $1::text IS NULL OR application_name IS NULL
   OR application_name = ANY (ARRAY(SELECT json_array_elements_text($1::json)))
ORDER BY schedule_name;

-- name: delete_schedule
DELETE FROM {schema}.workflow_schedules WHERE schedule_name = $1::text;

-- name: set_schedule_status
UPDATE {schema}.workflow_schedules SET status = $2::text WHERE schedule_name = $1::text;

-- name: note_fired
UPDATE {schema}.workflow_schedules SET last_fired_at = $2::text WHERE schedule_name = $1::text;

-- name: find_busy_schedules
-- Those of the schedules in $1 (a JSON array of names) of which a run has not ended.
SELECT DISTINCT schedule_name FROM {schema}.workflow_status
WHERE schedule_name = ANY (ARRAY(SELECT json_array_elements_text($1::json)))
  AND status IN ('ENQUEUED', 'DELAYED', 'PENDING');
