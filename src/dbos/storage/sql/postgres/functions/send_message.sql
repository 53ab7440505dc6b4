-- Puts one portable JSON message into a workflow's mailbox. Safe to repeat with the same message_id, which is
-- stored as given.
-- search_path is pinned: the function means the same whatever the caller's path holds.
CREATE OR REPLACE FUNCTION {schema}.send_message(
    destination_id TEXT,
    message JSON,
    topic TEXT DEFAULT NULL,
    message_id TEXT DEFAULT NULL
) RETURNS VOID LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    INSERT INTO {schema}.notifications (message_uuid, destination_uuid, topic, message, serialization)
    VALUES (
        coalesce(send_message.message_id, gen_random_uuid()::text),
        send_message.destination_id,
        coalesce(send_message.topic, '__null__topic__'),
        send_message.message::text,
        'portable_json'
    )
    ON CONFLICT (message_uuid) DO NOTHING;
EXCEPTION WHEN foreign_key_violation THEN
    RAISE EXCEPTION 'DBOS non-existent workflow' USING
        ERRCODE = 'foreign_key_violation',
        DETAIL = format('The message was not sent: there is no workflow with id %s.', send_message.destination_id);
END;
$function$;
