latest AS MATERIALIZED (
  -- Asked again here: the claimer may not have heard yet that another version was made the latest.
  SELECT $5::text = COALESCE((
    SELECT version_name FROM {schema}.application_versions
    WHERE application_name = $6::text OR application_name IS NULL
    ORDER BY version_timestamp DESC, created_at DESC LIMIT 1), $5::text) AS is_mine
), room AS MATERIALIZED (
  SELECT LEAST(
    $8::int8,
    -- Nothing by limits that have been changed: the claimer is about to read the new ones.
    CASE WHEN $14::int8 IS NOT NULL AND NOT EXISTS (
      SELECT FROM {schema}.queues WHERE name = $1::text AND updated_at = $14::int8) THEN 0 END,
    CASE WHEN $10::int8 IS NOT NULL THEN $10::int8 - (
      SELECT count(*) FROM {schema}.workflow_status
      WHERE queue_name = $1::text AND status = 'PENDING'
        AND (application_name = $6::text OR application_name IS NULL)) END,
    CASE WHEN $11::int8 IS NOT NULL THEN $11::int8 - (
      SELECT count(*) FROM {schema}.workflow_status
      WHERE queue_name = $1::text AND rate_limited = TRUE AND status NOT IN ('ENQUEUED', 'DELAYED')
        AND started_at_epoch_ms > (SELECT ms FROM clock) - $12::int8
        AND (application_name = $6::text OR application_name IS NULL)) END) AS n
