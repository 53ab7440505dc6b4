-- Versions 100 to 125, whose numbers mean the same change in every language.

-- migration: 100
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS application_name TEXT;

-- migration: 101
ALTER TABLE {schema}.queues ADD COLUMN IF NOT EXISTS application_name TEXT;

-- migration: 102
ALTER TABLE {schema}.workflow_schedules ADD COLUMN IF NOT EXISTS application_name TEXT;

-- migration: 103
ALTER TABLE {schema}.application_versions ADD COLUMN IF NOT EXISTS application_name TEXT;

-- migration: 104
ALTER TABLE {schema}.operation_outputs ADD COLUMN IF NOT EXISTS application_name TEXT;

-- migration: 106
CREATE UNIQUE INDEX IF NOT EXISTS uq_application_versions_owner_version
    ON {schema}.application_versions (application_name, version_name) WHERE application_name IS NOT NULL;

-- migration: 107 online
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS uq_application_versions_unclaimed_version
    ON {schema}.application_versions (version_name) WHERE application_name IS NULL;

-- migration: 108
ALTER TABLE {schema}.queues ADD COLUMN IF NOT EXISTS partition_concurrency INT4;
ALTER TABLE {schema}.queues ADD COLUMN IF NOT EXISTS partition_worker_concurrency INT4;
ALTER TABLE {schema}.queues ADD COLUMN IF NOT EXISTS partition_rate_limit_max INT4;
ALTER TABLE {schema}.queues ADD COLUMN IF NOT EXISTS partition_rate_limit_period_sec DOUBLE PRECISION;

-- migration: 109
CREATE TABLE IF NOT EXISTS {schema}.workflow_input (
    workflow_uuid TEXT PRIMARY KEY,
    inputs TEXT,
    retention_timestamp BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint
);
CREATE INDEX IF NOT EXISTS idx_workflow_input_retention ON {schema}.workflow_input (retention_timestamp);
CREATE TABLE IF NOT EXISTS {schema}.workflow_output (
    workflow_uuid TEXT PRIMARY KEY,
    output TEXT,
    error TEXT,
    retention_timestamp BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint
);
CREATE INDEX IF NOT EXISTS idx_workflow_output_retention ON {schema}.workflow_output (retention_timestamp);

-- migration: 110
ALTER TABLE {schema}.operation_outputs
    ADD COLUMN IF NOT EXISTS retention_timestamp BIGINT NOT NULL
    DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint;

-- migration: 111 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_operation_outputs_retention
    ON {schema}.operation_outputs (retention_timestamp);

-- migration: 112
-- Step rows may outlive their workflow from here on. The name depends on which release made the table.
ALTER TABLE {schema}.operation_outputs DROP CONSTRAINT IF EXISTS operation_outputs_workflow_uuid_foreign;
ALTER TABLE {schema}.operation_outputs DROP CONSTRAINT IF EXISTS operation_outputs_workflow_uuid_fkey;

-- migration: 113
-- One overload at any time: those of 14, 38 and 105 go.
DROP FUNCTION IF EXISTS {schema}.enqueue_workflow(
    TEXT, TEXT, JSON[], JSON, TEXT, TEXT, TEXT, TEXT, BIGINT, BIGINT, TEXT, INT4, TEXT
);
DROP FUNCTION IF EXISTS {schema}.enqueue_workflow(
    TEXT, TEXT, JSON[], JSON, TEXT, TEXT, TEXT, TEXT, BIGINT, BIGINT, TEXT, INT4, TEXT, TEXT, TEXT, BIGINT
);
-- include: functions/enqueue_workflow.sql

-- migration: 114 online
DROP INDEX CONCURRENTLY IF EXISTS {schema}.idx_notifications;

-- migration: 115 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_in_flight_v2
    ON {schema}.workflow_status (queue_name, status, priority, created_at) INCLUDE (application_name)
    WHERE status IN ('ENQUEUED', 'PENDING');

-- migration: 116 online
DROP INDEX CONCURRENTLY IF EXISTS {schema}.idx_workflow_status_in_flight;

-- migration: 117 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_partition_dequeue_v3
    ON {schema}.workflow_status (queue_name, status, queue_partition_key, priority, created_at, workflow_uuid)
    INCLUDE (application_name)
    WHERE status IN ('ENQUEUED', 'PENDING') AND queue_partition_key IS NOT NULL;

-- migration: 118 online
DROP INDEX CONCURRENTLY IF EXISTS {schema}.idx_workflow_status_partition_dequeue_v2;

-- migration: 119 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_operation_outputs_completed_at_function_name_v2
    ON {schema}.operation_outputs (completed_at_epoch_ms, function_name) INCLUDE (application_name);

-- migration: 120 online
DROP INDEX CONCURRENTLY IF EXISTS {schema}.idx_operation_outputs_completed_at_function_name;

-- migration: 121
ALTER TABLE {schema}.notifications ADD COLUMN IF NOT EXISTS consumed_by_function_id INT4;

-- migration: 122 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_deadline
    ON {schema}.workflow_status (workflow_deadline_epoch_ms)
    WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED') AND workflow_deadline_epoch_ms IS NOT NULL;

-- migration: 123
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS creator_xid TEXT;

-- migration: 124 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_application_versions_timestamp
    ON {schema}.application_versions (version_timestamp DESC);

-- migration: 125 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_application_versions_owner_timestamp
    ON {schema}.application_versions (application_name, version_timestamp DESC);
