-- Puts one workflow on a queue, with portable JSON inputs, and returns its id. Safe to repeat with the same
-- workflow_id: an existing workflow is only touched (updated_at), its name and arguments are not compared.
-- Later versions may only append parameters with defaults, and there is one overload at any time.
-- search_path is pinned: the function means the same whatever the caller's path holds.
CREATE OR REPLACE FUNCTION {schema}.enqueue_workflow(
    workflow_name TEXT,
    queue_name TEXT,
    positional_args JSON[] DEFAULT ARRAY[]::JSON[],
    named_args JSON DEFAULT '{}'::JSON,
    class_name TEXT DEFAULT NULL,
    config_name TEXT DEFAULT NULL,
    workflow_id TEXT DEFAULT NULL,
    app_version TEXT DEFAULT NULL,
    timeout_ms BIGINT DEFAULT NULL,
    deadline_epoch_ms BIGINT DEFAULT NULL,
    deduplication_id TEXT DEFAULT NULL,
    priority INT4 DEFAULT NULL,
    queue_partition_key TEXT DEFAULT NULL,
    authenticated_user TEXT DEFAULT NULL,
    authenticated_roles TEXT DEFAULT NULL,
    delay_until_epoch_ms BIGINT DEFAULT NULL,
    application_name TEXT DEFAULT NULL
) RETURNS TEXT LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    new_id TEXT := coalesce(enqueue_workflow.workflow_id, gen_random_uuid()::text);
    now_ms BIGINT := (extract(epoch FROM now()) * 1000.0)::bigint;
    token TEXT := gen_random_uuid()::text;  -- tells the row made here from one that was there; a claim replaces it
    stored_token TEXT;
    violated_constraint TEXT;
BEGIN
    IF coalesce(enqueue_workflow.workflow_name, '') = '' THEN
        RAISE EXCEPTION 'workflow_name must be the name of a workflow, not NULL or empty';
    END IF;
    IF coalesce(enqueue_workflow.queue_name, '') = '' THEN
        RAISE EXCEPTION 'queue_name must be the name of a queue, not NULL or empty';
    END IF;
    IF json_typeof(enqueue_workflow.named_args) <> 'object' THEN
        RAISE EXCEPTION 'named_args must be a JSON object, not a JSON %', json_typeof(enqueue_workflow.named_args);
    END IF;
    IF new_id = '' THEN
        RAISE EXCEPTION 'workflow_id must not be empty; leave it out to get a random one';
    END IF;
    IF enqueue_workflow.delay_until_epoch_ms < 0 THEN
        RAISE EXCEPTION 'delay_until_epoch_ms must not be negative, but is %', enqueue_workflow.delay_until_epoch_ms;
    END IF;

    BEGIN
        INSERT INTO {schema}.workflow_status AS existing (
            workflow_uuid, status, name, class_name, config_name, queue_name, serialization,
            application_version, application_name, authenticated_user, authenticated_roles,
            workflow_timeout_ms, workflow_deadline_epoch_ms, deduplication_id, priority, queue_partition_key,
            delay_until_epoch_ms, recovery_attempts, owner_xid, created_at, updated_at
        ) VALUES (
            new_id,
            CASE WHEN enqueue_workflow.delay_until_epoch_ms IS NULL THEN 'ENQUEUED' ELSE 'DELAYED' END,
            enqueue_workflow.workflow_name, enqueue_workflow.class_name, enqueue_workflow.config_name,
            enqueue_workflow.queue_name, 'portable_json',
            enqueue_workflow.app_version, enqueue_workflow.application_name,
            enqueue_workflow.authenticated_user, enqueue_workflow.authenticated_roles,
            enqueue_workflow.timeout_ms, enqueue_workflow.deadline_epoch_ms,
            enqueue_workflow.deduplication_id, coalesce(enqueue_workflow.priority, 0),
            enqueue_workflow.queue_partition_key,
            enqueue_workflow.delay_until_epoch_ms, 0, token, now_ms, now_ms
        )
        ON CONFLICT (workflow_uuid) DO UPDATE SET updated_at = now_ms
        RETURNING existing.owner_xid INTO stored_token;
    EXCEPTION WHEN unique_violation THEN
        GET STACKED DIAGNOSTICS violated_constraint = CONSTRAINT_NAME;
        IF violated_constraint <> 'uq_workflow_status_dedup_id' THEN
            RAISE;
        END IF;
        RAISE EXCEPTION 'DBOS queue duplicated' USING
            ERRCODE = 'unique_violation',
            DETAIL = format(
                'Workflow %s was not enqueued: queue %s already holds a workflow with deduplication id %s.',
                new_id, enqueue_workflow.queue_name, enqueue_workflow.deduplication_id
            );
    END;

    -- An existing workflow keeps its arguments, also one that has them in workflow_status.inputs.
    IF stored_token = token THEN
        INSERT INTO {schema}.workflow_input (workflow_uuid, inputs, retention_timestamp)
        VALUES (
            new_id,
            json_build_object(
                'positionalArgs', enqueue_workflow.positional_args, 'namedArgs', enqueue_workflow.named_args
            )::text,
            now_ms
        )
        ON CONFLICT (workflow_uuid) DO NOTHING;
    END IF;
    RETURN new_id;
END;
$function$;
