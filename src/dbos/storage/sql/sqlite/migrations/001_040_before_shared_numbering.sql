-- Versions 1 to 40, which belong to this language and backend. 41 to 99 are empty.
--
-- `-- migration: N` starts what brings a file from the version before to N. All pending ones run in one
-- transaction together with the note of the last.

-- migration: 1
CREATE TABLE workflow_status (
    workflow_uuid TEXT PRIMARY KEY,
    status TEXT,
    name TEXT,
    authenticated_user TEXT,
    assumed_role TEXT,
    authenticated_roles TEXT,
    request TEXT,
    output TEXT,
    error TEXT,
    executor_id TEXT,
    created_at INTEGER NOT NULL DEFAULT ({now_ms}),
    updated_at INTEGER NOT NULL DEFAULT ({now_ms}),
    application_version TEXT,
    application_id TEXT,
    class_name TEXT DEFAULT NULL,
    config_name TEXT DEFAULT NULL,
    recovery_attempts INTEGER DEFAULT 0,
    queue_name TEXT,
    workflow_timeout_ms INTEGER,
    workflow_deadline_epoch_ms INTEGER,
    inputs TEXT,
    started_at_epoch_ms INTEGER,
    deduplication_id TEXT,
    priority INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX workflow_status_created_at_index ON workflow_status (created_at);
CREATE INDEX workflow_status_executor_id_index ON workflow_status (executor_id);
CREATE INDEX workflow_status_status_index ON workflow_status (status);
CREATE UNIQUE INDEX uq_workflow_status_queue_name_dedup_id ON workflow_status (queue_name, deduplication_id);

CREATE TABLE operation_outputs (
    workflow_uuid TEXT NOT NULL
        REFERENCES workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    function_id INTEGER NOT NULL,
    function_name TEXT NOT NULL DEFAULT '',
    output TEXT,
    error TEXT,
    child_workflow_id TEXT,
    PRIMARY KEY (workflow_uuid, function_id)
);

CREATE TABLE notifications (
    message_uuid TEXT NOT NULL PRIMARY KEY DEFAULT (hex(randomblob(16))),
    destination_uuid TEXT NOT NULL
        REFERENCES workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    topic TEXT,
    message TEXT NOT NULL,
    created_at_epoch_ms INTEGER NOT NULL DEFAULT ({now_ms})
);
CREATE INDEX idx_workflow_topic ON notifications (destination_uuid, topic);

CREATE TABLE workflow_events (
    workflow_uuid TEXT NOT NULL
        REFERENCES workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (workflow_uuid, key)
);

CREATE TABLE streams (
    workflow_uuid TEXT NOT NULL
        REFERENCES workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    "offset" INTEGER NOT NULL,
    PRIMARY KEY (workflow_uuid, key, "offset")
);

-- migration: 2
ALTER TABLE workflow_status ADD COLUMN queue_partition_key TEXT;

-- migration: 3
CREATE INDEX idx_workflow_status_queue_status_started
    ON workflow_status (queue_name, status, started_at_epoch_ms);

-- migration: 4
ALTER TABLE workflow_status ADD COLUMN forked_from TEXT;
CREATE INDEX idx_workflow_status_forked_from ON workflow_status (forked_from);

-- migration: 5
ALTER TABLE operation_outputs ADD COLUMN started_at_epoch_ms INTEGER;
ALTER TABLE operation_outputs ADD COLUMN completed_at_epoch_ms INTEGER;

-- migration: 6
CREATE TABLE workflow_events_history (
    workflow_uuid TEXT NOT NULL
        REFERENCES workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    function_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (workflow_uuid, function_id, key)
);
ALTER TABLE streams ADD COLUMN function_id INTEGER NOT NULL DEFAULT 0;

-- migration: 7
ALTER TABLE workflow_status ADD COLUMN owner_xid TEXT DEFAULT NULL;

-- migration: 8
ALTER TABLE workflow_status ADD COLUMN parent_workflow_id TEXT DEFAULT NULL;
CREATE INDEX idx_workflow_status_parent_workflow_id ON workflow_status (parent_workflow_id);

-- migration: 9
CREATE TABLE workflow_schedules (
    schedule_id TEXT PRIMARY KEY,
    schedule_name TEXT NOT NULL UNIQUE,
    workflow_name TEXT NOT NULL,
    workflow_class_name TEXT,
    schedule TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'ACTIVE',
    context TEXT NOT NULL
);

-- migration: 10
ALTER TABLE workflow_status ADD COLUMN serialization TEXT DEFAULT NULL;
ALTER TABLE operation_outputs ADD COLUMN serialization TEXT DEFAULT NULL;
ALTER TABLE notifications ADD COLUMN serialization TEXT DEFAULT NULL;
ALTER TABLE workflow_events ADD COLUMN serialization TEXT DEFAULT NULL;
ALTER TABLE workflow_events_history ADD COLUMN serialization TEXT DEFAULT NULL;
ALTER TABLE streams ADD COLUMN serialization TEXT DEFAULT NULL;

-- migration: 11
ALTER TABLE notifications ADD COLUMN consumed BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX idx_notifications ON notifications (destination_uuid, topic);

-- migration: 12
CREATE TABLE application_versions (
    version_id TEXT NOT NULL PRIMARY KEY,
    version_name TEXT NOT NULL UNIQUE,
    version_timestamp INTEGER NOT NULL DEFAULT ({now_ms}),
    created_at INTEGER NOT NULL DEFAULT ({now_ms})
);

-- migration: 13
ALTER TABLE workflow_schedules ADD COLUMN last_fired_at TEXT DEFAULT NULL;
ALTER TABLE workflow_schedules ADD COLUMN automatic_backfill BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE workflow_schedules ADD COLUMN cron_timezone TEXT DEFAULT NULL;

-- migration: 14
ALTER TABLE workflow_status ADD COLUMN delay_until_epoch_ms BIGINT DEFAULT NULL;
CREATE INDEX idx_workflow_status_delayed ON workflow_status (delay_until_epoch_ms) WHERE status = 'DELAYED';

-- migration: 15
ALTER TABLE workflow_schedules ADD COLUMN queue_name TEXT DEFAULT NULL;

-- migration: 16
ALTER TABLE workflow_status ADD COLUMN was_forked_from BOOLEAN NOT NULL DEFAULT FALSE;

-- migration: 17
CREATE INDEX idx_operation_outputs_completed_at_function_name
    ON operation_outputs (completed_at_epoch_ms, function_name);

-- migration: 18
CREATE TABLE queues (
    queue_id TEXT PRIMARY KEY DEFAULT (hex(randomblob(16))),
    name TEXT NOT NULL UNIQUE,
    concurrency INTEGER,
    worker_concurrency INTEGER,
    rate_limit_max INTEGER,
    rate_limit_period_sec REAL,
    priority_enabled BOOLEAN NOT NULL DEFAULT FALSE,
    partition_queue BOOLEAN NOT NULL DEFAULT FALSE,
    polling_interval_sec REAL NOT NULL DEFAULT 1.0,
    created_at INTEGER NOT NULL DEFAULT ({now_ms}),
    updated_at INTEGER NOT NULL DEFAULT ({now_ms})
);

-- migration: 19
DROP INDEX IF EXISTS idx_workflow_status_forked_from;

-- migration: 20
CREATE INDEX IF NOT EXISTS idx_workflow_status_forked_from ON workflow_status (forked_from)
    WHERE "forked_from" IS NOT NULL;

-- migration: 21
DROP INDEX IF EXISTS idx_workflow_status_parent_workflow_id;

-- migration: 22
CREATE INDEX IF NOT EXISTS idx_workflow_status_parent_workflow_id ON workflow_status (parent_workflow_id)
    WHERE "parent_workflow_id" IS NOT NULL;

-- migration: 23
DROP INDEX IF EXISTS workflow_status_executor_id_index;

-- migration: 24
CREATE UNIQUE INDEX IF NOT EXISTS uq_workflow_status_dedup_id ON workflow_status (queue_name, deduplication_id)
    WHERE "deduplication_id" IS NOT NULL;

-- migration: 25
DROP INDEX IF EXISTS uq_workflow_status_queue_name_dedup_id;

-- migration: 26
CREATE INDEX IF NOT EXISTS idx_workflow_status_pending ON workflow_status (created_at) WHERE "status" = 'PENDING';

-- migration: 27
CREATE INDEX IF NOT EXISTS idx_workflow_status_failed ON workflow_status (status, created_at)
    WHERE "status" IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED');

-- migration: 28
DROP INDEX IF EXISTS workflow_status_status_index;

-- migration: 29
CREATE INDEX IF NOT EXISTS idx_workflow_status_in_flight
    ON workflow_status (queue_name, status, priority, created_at) WHERE "status" IN ('ENQUEUED', 'PENDING');

-- migration: 30
ALTER TABLE workflow_status ADD COLUMN rate_limited BOOLEAN NOT NULL DEFAULT FALSE;

-- migration: 31
CREATE INDEX IF NOT EXISTS idx_workflow_status_rate_limited ON workflow_status (queue_name, started_at_epoch_ms)
    WHERE "rate_limited" = TRUE;

-- migration: 32
DROP INDEX IF EXISTS idx_workflow_status_queue_status_started;

-- migration: 33
ALTER TABLE workflow_status ADD COLUMN completed_at BIGINT;
CREATE INDEX IF NOT EXISTS idx_workflow_status_completed_at ON workflow_status (completed_at)
    WHERE "completed_at" IS NOT NULL;

-- migration: 34
CREATE INDEX IF NOT EXISTS idx_workflow_status_started_at ON workflow_status (started_at_epoch_ms)
    WHERE "started_at_epoch_ms" IS NOT NULL;

-- migration: 35
ALTER TABLE workflow_status ADD COLUMN attributes TEXT;

-- migration: 36
ALTER TABLE workflow_status ADD COLUMN schedule_name TEXT;
CREATE INDEX IF NOT EXISTS idx_workflow_status_schedule_name ON workflow_status (schedule_name)
    WHERE "schedule_name" IS NOT NULL;

-- migration: 37
ALTER TABLE workflow_status ADD COLUMN debounce_deadline_epoch_ms BIGINT DEFAULT NULL;
ALTER TABLE workflow_status ADD COLUMN is_debounced BOOLEAN NOT NULL DEFAULT FALSE;

-- migration: 38
CREATE INDEX IF NOT EXISTS idx_workflow_status_partition_dequeue
    ON workflow_status (queue_name, status, queue_partition_key, priority, created_at)
    WHERE "status" IN ('ENQUEUED', 'PENDING') AND "queue_partition_key" IS NOT NULL;

-- migration: 39
CREATE INDEX IF NOT EXISTS idx_workflow_status_partition_dequeue_v2
    ON workflow_status (queue_name, status, queue_partition_key, priority, created_at, workflow_uuid)
    WHERE "status" IN ('ENQUEUED', 'PENDING') AND "queue_partition_key" IS NOT NULL;

-- migration: 40
DROP INDEX IF EXISTS idx_workflow_status_partition_dequeue;
