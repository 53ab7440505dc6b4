-- Versions 100 to 125, whose numbers mean the same change in every language. 105 and 113 concern Postgres only.

-- migration: 100
ALTER TABLE workflow_status ADD COLUMN application_name TEXT DEFAULT NULL;

-- migration: 101
ALTER TABLE queues ADD COLUMN application_name TEXT DEFAULT NULL;

-- migration: 102
ALTER TABLE workflow_schedules ADD COLUMN application_name TEXT DEFAULT NULL;

-- migration: 103
ALTER TABLE application_versions ADD COLUMN application_name TEXT DEFAULT NULL;

-- migration: 104
ALTER TABLE operation_outputs ADD COLUMN application_name TEXT DEFAULT NULL;

-- migration: 106
CREATE UNIQUE INDEX IF NOT EXISTS uq_application_versions_owner_version
    ON application_versions (application_name, version_name) WHERE "application_name" IS NOT NULL;

-- migration: 107
CREATE UNIQUE INDEX IF NOT EXISTS uq_application_versions_unclaimed_version
    ON application_versions (version_name) WHERE "application_name" IS NULL;

-- migration: 108
ALTER TABLE queues ADD COLUMN partition_concurrency INTEGER DEFAULT NULL;
ALTER TABLE queues ADD COLUMN partition_worker_concurrency INTEGER DEFAULT NULL;
ALTER TABLE queues ADD COLUMN partition_rate_limit_max INTEGER DEFAULT NULL;
ALTER TABLE queues ADD COLUMN partition_rate_limit_period_sec REAL DEFAULT NULL;

-- migration: 109
CREATE TABLE workflow_input (
    workflow_uuid TEXT NOT NULL PRIMARY KEY,
    inputs TEXT,
    retention_timestamp INTEGER NOT NULL DEFAULT ({now_ms})
);
CREATE INDEX idx_workflow_input_retention ON workflow_input (retention_timestamp);
CREATE TABLE workflow_output (
    workflow_uuid TEXT NOT NULL PRIMARY KEY,
    output TEXT,
    error TEXT,
    retention_timestamp INTEGER NOT NULL DEFAULT ({now_ms})
);
CREATE INDEX idx_workflow_output_retention ON workflow_output (retention_timestamp);

-- migration: 110
-- SQLite cannot add a column with a default that is not constant; 112 makes it NOT NULL.
ALTER TABLE operation_outputs ADD COLUMN retention_timestamp INTEGER;

-- migration: 111
CREATE INDEX IF NOT EXISTS idx_operation_outputs_retention ON operation_outputs (retention_timestamp);

-- migration: 112
-- Step rows may outlive their workflow from here on. A foreign key can only be dropped by copying the table.
CREATE TABLE operation_outputs_without_foreign_key (
    workflow_uuid TEXT NOT NULL,
    function_id INTEGER NOT NULL,
    function_name TEXT NOT NULL DEFAULT '',
    output TEXT,
    error TEXT,
    child_workflow_id TEXT,
    started_at_epoch_ms INTEGER,
    completed_at_epoch_ms INTEGER,
    serialization TEXT,
    application_name TEXT DEFAULT NULL,
    retention_timestamp INTEGER NOT NULL DEFAULT ({now_ms}),
    PRIMARY KEY (workflow_uuid, function_id)
);
INSERT INTO operation_outputs_without_foreign_key (
    workflow_uuid, function_id, function_name, output, error, child_workflow_id,
    started_at_epoch_ms, completed_at_epoch_ms, serialization, application_name, retention_timestamp
)
SELECT
    workflow_uuid, function_id, function_name, output, error, child_workflow_id,
    started_at_epoch_ms, completed_at_epoch_ms, serialization, application_name,
    coalesce(retention_timestamp, CAST({now_ms} AS INTEGER))
FROM operation_outputs;
DROP TABLE operation_outputs;
ALTER TABLE operation_outputs_without_foreign_key RENAME TO operation_outputs;
CREATE INDEX idx_operation_outputs_completed_at_function_name
    ON operation_outputs (completed_at_epoch_ms, function_name);
CREATE INDEX idx_operation_outputs_retention ON operation_outputs (retention_timestamp);

-- migration: 114
DROP INDEX IF EXISTS idx_notifications;

-- migration: 115
CREATE INDEX IF NOT EXISTS idx_workflow_status_in_flight_v2
    ON workflow_status (queue_name, status, priority, created_at, application_name)
    WHERE "status" IN ('ENQUEUED', 'PENDING');

-- migration: 116
DROP INDEX IF EXISTS idx_workflow_status_in_flight;

-- migration: 117
CREATE INDEX IF NOT EXISTS idx_workflow_status_partition_dequeue_v3
    ON workflow_status (
        queue_name, status, queue_partition_key, priority, created_at, workflow_uuid, application_name
    )
    WHERE "status" IN ('ENQUEUED', 'PENDING') AND "queue_partition_key" IS NOT NULL;

-- migration: 118
DROP INDEX IF EXISTS idx_workflow_status_partition_dequeue_v2;

-- migration: 119
CREATE INDEX IF NOT EXISTS idx_operation_outputs_completed_at_function_name_v2
    ON operation_outputs (completed_at_epoch_ms, function_name, application_name);

-- migration: 120
DROP INDEX IF EXISTS idx_operation_outputs_completed_at_function_name;

-- migration: 121
ALTER TABLE notifications ADD COLUMN consumed_by_function_id INTEGER;

-- migration: 122
CREATE INDEX IF NOT EXISTS idx_workflow_status_deadline ON workflow_status (workflow_deadline_epoch_ms)
    WHERE "status" IN ('ENQUEUED', 'PENDING', 'DELAYED') AND "workflow_deadline_epoch_ms" IS NOT NULL;

-- migration: 123
ALTER TABLE workflow_status ADD COLUMN creator_xid TEXT DEFAULT NULL;

-- migration: 124
CREATE INDEX IF NOT EXISTS idx_application_versions_timestamp ON application_versions (version_timestamp DESC);

-- migration: 125
CREATE INDEX IF NOT EXISTS idx_application_versions_owner_timestamp
    ON application_versions (application_name, version_timestamp DESC);
