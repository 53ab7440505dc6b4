-- Announces each message in the transaction that inserts it; created only with use_listen_notify.
-- Safe to repeat.
CREATE OR REPLACE FUNCTION {schema}.notifications_function() RETURNS TRIGGER
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    payload TEXT := NEW.destination_uuid || '::' || NEW.topic;
BEGIN
    -- Postgres refuses longer payloads, and the message matters more than its announcement: without one the
    -- receiver finds the message at its next look.
    IF octet_length(payload) < 8000 THEN
        PERFORM pg_notify('dbos_notifications_channel', payload);
    END IF;
    RETURN NEW;
END;
$function$;

DROP TRIGGER IF EXISTS dbos_notifications_trigger ON {schema}.notifications;
CREATE TRIGGER dbos_notifications_trigger AFTER INSERT ON {schema}.notifications
    FOR EACH ROW EXECUTE FUNCTION {schema}.notifications_function();
