room (n) AS (
  SELECT min(
    ?8,
    CASE WHEN ?10 IS NULL THEN ?8 ELSE ?10 - (
      SELECT count(*) FROM workflow_status
      WHERE queue_name = ?1 AND status = 'PENDING' AND status IN ('ENQUEUED', 'PENDING')
        AND (application_name = ?6 OR application_name IS NULL)) END,
    CASE WHEN ?11 IS NULL THEN ?8 ELSE ?11 - (
      SELECT count(*) FROM workflow_status
      WHERE queue_name = ?1 AND rate_limited = TRUE AND status NOT IN ('ENQUEUED', 'DELAYED')
        AND started_at_epoch_ms > (SELECT ms FROM clock) - ?12 AND (application_name = ?6 OR application_name IS NULL)) END)
