-- Versions 1 to 47, which belong to this language and backend. 48 to 99 are empty.
--
-- `-- migration: N` starts what brings a database from the version before to N, in one transaction with the note
-- of N. `online` ones run outside a transaction, so that tables stay writable while an index is built; they may
-- be cut off half-way and must be safe to repeat. `listen_notify` adds what only databases with notifications get.

-- migration: 1
CREATE TABLE {schema}.workflow_status (
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
    created_at BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
    updated_at BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
    application_version TEXT,
    application_id TEXT,
    class_name VARCHAR(255) DEFAULT NULL,
    config_name VARCHAR(255) DEFAULT NULL,
    recovery_attempts BIGINT DEFAULT 0,
    queue_name TEXT,
    workflow_timeout_ms BIGINT,
    workflow_deadline_epoch_ms BIGINT,
    inputs TEXT,
    started_at_epoch_ms BIGINT,
    deduplication_id TEXT,
    priority INT4 NOT NULL DEFAULT 0,
    CONSTRAINT uq_workflow_status_queue_name_dedup_id UNIQUE (queue_name, deduplication_id)
);
CREATE INDEX workflow_status_created_at_index ON {schema}.workflow_status (created_at);
CREATE INDEX workflow_status_executor_id_index ON {schema}.workflow_status (executor_id);
CREATE INDEX workflow_status_status_index ON {schema}.workflow_status (status);

CREATE TABLE {schema}.operation_outputs (
    workflow_uuid TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    function_id INT4 NOT NULL,
    function_name TEXT NOT NULL DEFAULT '',
    output TEXT,
    error TEXT,
    child_workflow_id TEXT,
    PRIMARY KEY (workflow_uuid, function_id)
);

CREATE TABLE {schema}.notifications (
    message_uuid TEXT NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
    destination_uuid TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    topic TEXT,
    message TEXT NOT NULL,
    created_at_epoch_ms BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint
);
CREATE INDEX idx_workflow_topic ON {schema}.notifications (destination_uuid, topic);

CREATE TABLE {schema}.workflow_events (
    workflow_uuid TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (workflow_uuid, key)
);

CREATE TABLE {schema}.streams (
    workflow_uuid TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    "offset" INT4 NOT NULL,
    PRIMARY KEY (workflow_uuid, key, "offset")
);

CREATE TABLE {schema}.event_dispatch_kv (
    service_name TEXT NOT NULL,
    workflow_fn_name TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT,
    update_seq NUMERIC(38, 0),
    update_time NUMERIC(38, 15),
    PRIMARY KEY (service_name, workflow_fn_name, key)
);

-- migration: 1 listen_notify
-- The trigger on workflow_events of this version is left out: 44 takes it away again.
-- include: listen_notify.sql

-- migration: 2
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS queue_partition_key TEXT;

-- migration: 3
CREATE INDEX IF NOT EXISTS idx_workflow_status_queue_status_started
    ON {schema}.workflow_status (queue_name, status, started_at_epoch_ms);

-- migration: 4
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS forked_from TEXT;
CREATE INDEX IF NOT EXISTS idx_workflow_status_forked_from ON {schema}.workflow_status (forked_from);

-- migration: 5
ALTER TABLE {schema}.operation_outputs ADD COLUMN IF NOT EXISTS started_at_epoch_ms BIGINT;
ALTER TABLE {schema}.operation_outputs ADD COLUMN IF NOT EXISTS completed_at_epoch_ms BIGINT;

-- migration: 6
CREATE TABLE IF NOT EXISTS {schema}.workflow_events_history (
    workflow_uuid TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    function_id INT4 NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (workflow_uuid, function_id, key)
);
ALTER TABLE {schema}.streams ADD COLUMN IF NOT EXISTS function_id INT4 NOT NULL DEFAULT 0;

-- migration: 7
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS owner_xid TEXT;

-- migration: 8
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS parent_workflow_id TEXT;
CREATE INDEX IF NOT EXISTS idx_workflow_status_parent_workflow_id ON {schema}.workflow_status (parent_workflow_id);

-- migration: 9
CREATE TABLE IF NOT EXISTS {schema}.workflow_schedules (
    schedule_id TEXT PRIMARY KEY,
    schedule_name TEXT NOT NULL UNIQUE,
    workflow_name TEXT NOT NULL,
    workflow_class_name TEXT,
    schedule TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'ACTIVE',
    context TEXT NOT NULL
);

-- migration: 10
-- Databases of the first releases have no primary key here.
DO $block$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = $table${schema}.notifications$table$::regclass AND contype = 'p'
    ) THEN
        ALTER TABLE {schema}.notifications ADD PRIMARY KEY (message_uuid);
    END IF;
END;
$block$;

-- migration: 11
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS serialization TEXT;
ALTER TABLE {schema}.operation_outputs ADD COLUMN IF NOT EXISTS serialization TEXT;
ALTER TABLE {schema}.notifications ADD COLUMN IF NOT EXISTS serialization TEXT;
ALTER TABLE {schema}.workflow_events ADD COLUMN IF NOT EXISTS serialization TEXT;
ALTER TABLE {schema}.workflow_events_history ADD COLUMN IF NOT EXISTS serialization TEXT;
ALTER TABLE {schema}.streams ADD COLUMN IF NOT EXISTS serialization TEXT;

-- migration: 12
ALTER TABLE {schema}.notifications ADD COLUMN IF NOT EXISTS consumed BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX IF NOT EXISTS idx_notifications ON {schema}.notifications (destination_uuid, topic);

-- migration: 13
CREATE TABLE IF NOT EXISTS {schema}.application_versions (
    version_id TEXT PRIMARY KEY,
    version_name TEXT NOT NULL UNIQUE,
    version_timestamp BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
    created_at BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint
);

-- migration: 14
-- enqueue_workflow, which this version added and 38 and 105 extended, is made by 113 in its last form.
-- include: functions/send_message.sql

-- migration: 15
ALTER TABLE {schema}.workflow_schedules ADD COLUMN IF NOT EXISTS last_fired_at TEXT;
ALTER TABLE {schema}.workflow_schedules
    ADD COLUMN IF NOT EXISTS automatic_backfill BOOLEAN NOT NULL DEFAULT FALSE;
ALTER TABLE {schema}.workflow_schedules ADD COLUMN IF NOT EXISTS cron_timezone TEXT;

-- migration: 16
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS delay_until_epoch_ms BIGINT;
CREATE INDEX IF NOT EXISTS idx_workflow_status_delayed ON {schema}.workflow_status (delay_until_epoch_ms)
    WHERE status = 'DELAYED';

-- migration: 17
ALTER TABLE {schema}.workflow_schedules ADD COLUMN IF NOT EXISTS queue_name TEXT;

-- migration: 18
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS was_forked_from BOOLEAN NOT NULL DEFAULT FALSE;

-- migration: 19
CREATE INDEX IF NOT EXISTS idx_operation_outputs_completed_at_function_name
    ON {schema}.operation_outputs (completed_at_epoch_ms, function_name);

-- migration: 20
-- Functions made before this version follow the caller's search_path.
DROP FUNCTION IF EXISTS {schema}.send_message(TEXT, JSON, TEXT, TEXT);
-- include: functions/send_message.sql

-- migration: 20 listen_notify
-- include: listen_notify.sql

-- migration: 21
CREATE TABLE IF NOT EXISTS {schema}.queues (
    queue_id TEXT NOT NULL DEFAULT gen_random_uuid()::text PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    concurrency INT4,
    worker_concurrency INT4,
    rate_limit_max INT4,
    rate_limit_period_sec DOUBLE PRECISION,
    priority_enabled BOOLEAN NOT NULL DEFAULT FALSE,
    partition_queue BOOLEAN NOT NULL DEFAULT FALSE,
    polling_interval_sec DOUBLE PRECISION NOT NULL DEFAULT 1.0,
    created_at BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
    updated_at BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint
);

-- migration: 22 online
DROP INDEX CONCURRENTLY IF EXISTS {schema}.idx_workflow_status_forked_from;

-- migration: 23 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_forked_from ON {schema}.workflow_status (forked_from)
    WHERE forked_from IS NOT NULL;

-- migration: 24 online
DROP INDEX CONCURRENTLY IF EXISTS {schema}.idx_workflow_status_parent_workflow_id;

-- migration: 25 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_parent_workflow_id
    ON {schema}.workflow_status (parent_workflow_id) WHERE parent_workflow_id IS NOT NULL;

-- migration: 26 online
DROP INDEX CONCURRENTLY IF EXISTS {schema}.workflow_status_executor_id_index;

-- migration: 27 online
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS uq_workflow_status_dedup_id
    ON {schema}.workflow_status (queue_name, deduplication_id) WHERE deduplication_id IS NOT NULL;

-- migration: 28
ALTER TABLE {schema}.workflow_status DROP CONSTRAINT IF EXISTS uq_workflow_status_queue_name_dedup_id;

-- migration: 29 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_pending ON {schema}.workflow_status (created_at)
    WHERE status = 'PENDING';

-- migration: 30 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_failed
    ON {schema}.workflow_status (status, created_at)
    WHERE status IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED');

-- migration: 31 online
DROP INDEX CONCURRENTLY IF EXISTS {schema}.workflow_status_status_index;

-- migration: 32 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_in_flight
    ON {schema}.workflow_status (queue_name, status, priority, created_at)
    WHERE status IN ('ENQUEUED', 'PENDING');

-- migration: 33
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS rate_limited BOOLEAN NOT NULL DEFAULT FALSE;

-- migration: 34 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_rate_limited
    ON {schema}.workflow_status (queue_name, started_at_epoch_ms) WHERE rate_limited = TRUE;

-- migration: 35 online
DROP INDEX CONCURRENTLY IF EXISTS {schema}.idx_workflow_status_queue_status_started;

-- migration: 36
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS completed_at BIGINT;
CREATE INDEX IF NOT EXISTS idx_workflow_status_completed_at ON {schema}.workflow_status (completed_at)
    WHERE completed_at IS NOT NULL;

-- migration: 37 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_started_at
    ON {schema}.workflow_status (started_at_epoch_ms) WHERE started_at_epoch_ms IS NOT NULL;

-- migration: 40
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS attributes JSONB;
CREATE INDEX IF NOT EXISTS idx_workflow_status_attributes ON {schema}.workflow_status USING gin (attributes)
    WHERE attributes IS NOT NULL;

-- migration: 41
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS schedule_name TEXT;
CREATE INDEX IF NOT EXISTS idx_workflow_status_schedule_name ON {schema}.workflow_status (schedule_name)
    WHERE schedule_name IS NOT NULL;

-- migration: 42
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS debounce_deadline_epoch_ms BIGINT;
ALTER TABLE {schema}.workflow_status ADD COLUMN IF NOT EXISTS is_debounced BOOLEAN NOT NULL DEFAULT FALSE;

-- migration: 43
-- 39 had added this one; never made here.
DROP TRIGGER IF EXISTS dbos_streams_trigger ON {schema}.streams;
DROP FUNCTION IF EXISTS {schema}.streams_function();

-- migration: 44
DROP TRIGGER IF EXISTS dbos_workflow_events_trigger ON {schema}.workflow_events;
DROP FUNCTION IF EXISTS {schema}.workflow_events_function();

-- migration: 45 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_partition_dequeue
    ON {schema}.workflow_status (queue_name, status, queue_partition_key, priority, created_at)
    WHERE status IN ('ENQUEUED', 'PENDING') AND queue_partition_key IS NOT NULL;

-- migration: 46 online
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_workflow_status_partition_dequeue_v2
    ON {schema}.workflow_status (queue_name, status, queue_partition_key, priority, created_at, workflow_uuid)
    WHERE status IN ('ENQUEUED', 'PENDING') AND queue_partition_key IS NOT NULL;

-- migration: 47 online
DROP INDEX CONCURRENTLY IF EXISTS {schema}.idx_workflow_status_partition_dequeue;
