latest AS MATERIALIZED (
  -- Asked again here: the claimer may not have heard yet that another version was made the latest.
  SELECT ?5 = COALESCE((
    SELECT version_name FROM application_versions
    WHERE application_name = ?6 OR application_name IS NULL
    ORDER BY version_timestamp DESC, created_at DESC LIMIT 1), ?5) AS is_mine
), room (n) AS (
  SELECT min(
    ?8,
    -- Nothing by limits that have been changed: the claimer is about to read the new ones.
    CASE WHEN ?14 IS NULL OR EXISTS (
      SELECT 1 FROM queues WHERE name = ?1 AND updated_at = ?14) THEN ?8 ELSE 0 END,
    CASE WHEN ?10 IS NULL THEN ?8 ELSE ?10 - (
      SELECT count(*) FROM workflow_status
      WHERE queue_name = ?1 AND status = 'PENDING' AND status IN ('ENQUEUED', 'PENDING')
        AND (application_name = ?6 OR application_name IS NULL)) END,
    CASE WHEN ?11 IS NULL THEN ?8 ELSE ?11 - (
      SELECT count(*) FROM workflow_status
      WHERE queue_name = ?1 AND rate_limited = TRUE AND status NOT IN ('ENQUEUED', 'DELAYED')
        AND started_at_epoch_ms > (SELECT ms FROM clock) - ?12 AND (application_name = ?6 OR application_name IS NULL)) END)
