-- Files made by the first releases (up to 2.12) have no primary key on notifications, and no numbered migration gives
-- them one on SQLite. Without it a message id is not unique and `ON CONFLICT (message_uuid)` is refused.
-- SQLite adds a key only by copying the table. Of messages with one id, the first stays.
CREATE TABLE notifications_with_primary_key (
    message_uuid TEXT NOT NULL PRIMARY KEY DEFAULT (hex(randomblob(16))),
    destination_uuid TEXT NOT NULL
        REFERENCES workflow_status (workflow_uuid) ON UPDATE CASCADE ON DELETE CASCADE,
    topic TEXT,
    message TEXT NOT NULL,
    created_at_epoch_ms INTEGER NOT NULL DEFAULT ({now_ms}),
    serialization TEXT DEFAULT NULL,
    consumed BOOLEAN NOT NULL DEFAULT FALSE,
    consumed_by_function_id INTEGER
);
INSERT OR IGNORE INTO notifications_with_primary_key (
    message_uuid, destination_uuid, topic, message, created_at_epoch_ms, serialization, consumed,
    consumed_by_function_id
)
SELECT
    message_uuid, destination_uuid, topic, message, created_at_epoch_ms, serialization, consumed,
    consumed_by_function_id
FROM notifications
ORDER BY created_at_epoch_ms, rowid;
DROP TABLE notifications;
ALTER TABLE notifications_with_primary_key RENAME TO notifications;
CREATE INDEX idx_workflow_topic ON notifications (destination_uuid, topic);
