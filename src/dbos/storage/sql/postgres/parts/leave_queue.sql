-- What a workflow loses that is cancelled or given up. Its queue is noted in `request`, a column that the format keeps and
-- nobody uses any more, so that a resume finds the way back. A text that stands there already is left alone.
    owner_xid = NULL, queue_name = NULL, deduplication_id = NULL, started_at_epoch_ms = NULL,
    request = CASE WHEN queue_name <> '_dbos_internal_queue' AND (request IS NULL OR request LIKE '{"dbos.queue":%')
                   THEN '{"dbos.queue":' || to_json(queue_name)::text || '}' ELSE request END,
