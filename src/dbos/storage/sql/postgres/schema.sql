-- The system database at schema version 125, as a fresh Postgres database gets it: in one transaction.
--
-- Names, types, defaults and indexes are shared with other processes, releases and languages; they change only
-- together with a numbered migration (see migrations/). `now-ms` defaults stamp the start of the transaction.
-- {schema} is replaced by the quoted schema name. The trigger that announces messages is in listen_notify.sql.

-- The one row holds the version of the schema.
CREATE TABLE IF NOT EXISTS {schema}.dbos_migrations (
    version BIGINT NOT NULL PRIMARY KEY
);

-- One row per workflow: who runs it, where it stands. Its payloads are in the two tables below; the columns
-- request, inputs, output and error are only read, for rows from before version 109.
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
    queue_partition_key TEXT,
    forked_from TEXT,
    owner_xid TEXT,
    parent_workflow_id TEXT,
    serialization TEXT,
    delay_until_epoch_ms BIGINT,
    was_forked_from BOOLEAN NOT NULL DEFAULT FALSE,
    rate_limited BOOLEAN NOT NULL DEFAULT FALSE,
    completed_at BIGINT,
    attributes JSONB,
    schedule_name TEXT,
    debounce_deadline_epoch_ms BIGINT,
    is_debounced BOOLEAN NOT NULL DEFAULT FALSE,
    application_name TEXT,
    creator_xid TEXT
);

CREATE INDEX workflow_status_created_at_index ON {schema}.workflow_status (created_at);

-- A deduplication id is held once per queue.
CREATE UNIQUE INDEX uq_workflow_status_dedup_id ON {schema}.workflow_status (queue_name, deduplication_id)
    WHERE deduplication_id IS NOT NULL;

-- Claiming from a queue, and from one partition of a queue.
CREATE INDEX idx_workflow_status_in_flight_v2
    ON {schema}.workflow_status (queue_name, status, priority, created_at) INCLUDE (application_name)
    WHERE status IN ('ENQUEUED', 'PENDING');
CREATE INDEX idx_workflow_status_partition_dequeue_v3
    ON {schema}.workflow_status (queue_name, status, queue_partition_key, priority, created_at, workflow_uuid)
    INCLUDE (application_name)
    WHERE status IN ('ENQUEUED', 'PENDING') AND queue_partition_key IS NOT NULL;
CREATE INDEX idx_workflow_status_rate_limited ON {schema}.workflow_status (queue_name, started_at_epoch_ms)
    WHERE rate_limited = TRUE;

-- Recovery, delays and timeouts.
CREATE INDEX idx_workflow_status_pending ON {schema}.workflow_status (created_at) WHERE status = 'PENDING';
CREATE INDEX idx_workflow_status_delayed ON {schema}.workflow_status (delay_until_epoch_ms)
    WHERE status = 'DELAYED';
CREATE INDEX idx_workflow_status_deadline ON {schema}.workflow_status (workflow_deadline_epoch_ms)
    WHERE status IN ('ENQUEUED', 'PENDING', 'DELAYED') AND workflow_deadline_epoch_ms IS NOT NULL;

-- Listings.
CREATE INDEX idx_workflow_status_failed ON {schema}.workflow_status (status, created_at)
    WHERE status IN ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED');
CREATE INDEX idx_workflow_status_completed_at ON {schema}.workflow_status (completed_at)
    WHERE completed_at IS NOT NULL;
CREATE INDEX idx_workflow_status_started_at ON {schema}.workflow_status (started_at_epoch_ms)
    WHERE started_at_epoch_ms IS NOT NULL;
CREATE INDEX idx_workflow_status_forked_from ON {schema}.workflow_status (forked_from)
    WHERE forked_from IS NOT NULL;
CREATE INDEX idx_workflow_status_parent_workflow_id ON {schema}.workflow_status (parent_workflow_id)
    WHERE parent_workflow_id IS NOT NULL;
CREATE INDEX idx_workflow_status_schedule_name ON {schema}.workflow_status (schedule_name)
    WHERE schedule_name IS NOT NULL;
CREATE INDEX idx_workflow_status_attributes ON {schema}.workflow_status USING gin (attributes)
    WHERE attributes IS NOT NULL;

-- Payloads of workflows. No foreign key: they may outlive the status row until a retention sweep.
CREATE TABLE {schema}.workflow_input (
    workflow_uuid TEXT PRIMARY KEY,
    inputs TEXT,
    retention_timestamp BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint
);
CREATE INDEX idx_workflow_input_retention ON {schema}.workflow_input (retention_timestamp);

CREATE TABLE {schema}.workflow_output (
    workflow_uuid TEXT PRIMARY KEY,
    output TEXT,
    error TEXT,
    retention_timestamp BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint
);
CREATE INDEX idx_workflow_output_retention ON {schema}.workflow_output (retention_timestamp);

-- One row per recorded step. No foreign key either.
CREATE TABLE {schema}.operation_outputs (
    workflow_uuid TEXT NOT NULL,
    function_id INT4 NOT NULL,
    function_name TEXT NOT NULL DEFAULT '',
    output TEXT,
    error TEXT,
    child_workflow_id TEXT,
    started_at_epoch_ms BIGINT,
    completed_at_epoch_ms BIGINT,
    serialization TEXT,
    application_name TEXT,
    retention_timestamp BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
    PRIMARY KEY (workflow_uuid, function_id)
);
CREATE INDEX idx_operation_outputs_completed_at_function_name_v2
    ON {schema}.operation_outputs (completed_at_epoch_ms, function_name) INCLUDE (application_name);
CREATE INDEX idx_operation_outputs_retention ON {schema}.operation_outputs (retention_timestamp);

-- Messages to workflows. Consumed ones are kept, marked with the step that took them.
CREATE TABLE {schema}.notifications (
    message_uuid TEXT NOT NULL DEFAULT gen_random_uuid() PRIMARY KEY,
    destination_uuid TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    topic TEXT,
    message TEXT NOT NULL,
    created_at_epoch_ms BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
    serialization TEXT,
    consumed BOOLEAN NOT NULL DEFAULT FALSE,
    consumed_by_function_id INT4
);
CREATE INDEX idx_workflow_topic ON {schema}.notifications (destination_uuid, topic);

-- Current value of each event, and the value each step set.
CREATE TABLE {schema}.workflow_events (
    workflow_uuid TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    serialization TEXT,
    PRIMARY KEY (workflow_uuid, key)
);

CREATE TABLE {schema}.workflow_events_history (
    workflow_uuid TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    function_id INT4 NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    serialization TEXT,
    PRIMARY KEY (workflow_uuid, function_id, key)
);

-- Streams: entries under a key, offsets dense from 0.
CREATE TABLE {schema}.streams (
    workflow_uuid TEXT NOT NULL
        REFERENCES {schema}.workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    "offset" INT4 NOT NULL,
    function_id INT4 NOT NULL DEFAULT 0,
    serialization TEXT,
    PRIMARY KEY (workflow_uuid, key, "offset")
);

-- Things addressed by a global name, each with at most one owning application.
CREATE TABLE {schema}.workflow_schedules (
    schedule_id TEXT PRIMARY KEY,
    schedule_name TEXT NOT NULL UNIQUE,
    workflow_name TEXT NOT NULL,
    workflow_class_name TEXT,
    schedule TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'ACTIVE',
    context TEXT NOT NULL,
    last_fired_at TEXT,
    automatic_backfill BOOLEAN NOT NULL DEFAULT FALSE,
    cron_timezone TEXT,
    queue_name TEXT,
    application_name TEXT
);

CREATE TABLE {schema}.application_versions (
    version_id TEXT PRIMARY KEY,
    version_name TEXT NOT NULL UNIQUE,
    version_timestamp BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
    created_at BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
    application_name TEXT
);
-- These two replace the global UNIQUE above one day; no statement may name that one as conflict target.
CREATE UNIQUE INDEX uq_application_versions_owner_version
    ON {schema}.application_versions (application_name, version_name) WHERE application_name IS NOT NULL;
CREATE UNIQUE INDEX uq_application_versions_unclaimed_version
    ON {schema}.application_versions (version_name) WHERE application_name IS NULL;
CREATE INDEX idx_application_versions_timestamp ON {schema}.application_versions (version_timestamp DESC);
CREATE INDEX idx_application_versions_owner_timestamp
    ON {schema}.application_versions (application_name, version_timestamp DESC);

CREATE TABLE {schema}.queues (
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
    updated_at BIGINT NOT NULL DEFAULT (EXTRACT(epoch FROM now()) * 1000.0)::bigint,
    application_name TEXT,
    partition_concurrency INT4,
    partition_worker_concurrency INT4,
    partition_rate_limit_max INT4,
    partition_rate_limit_period_sec DOUBLE PRECISION
);

-- Not used any more; kept because other releases expect it.
CREATE TABLE {schema}.event_dispatch_kv (
    service_name TEXT NOT NULL,
    workflow_fn_name TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT,
    update_seq NUMERIC(38, 0),
    update_time NUMERIC(38, 15),
    PRIMARY KEY (service_name, workflow_fn_name, key)
);

-- include: functions/enqueue_workflow.sql
-- include: functions/send_message.sql
