-- +goose Up

-- The functions below take part in the transaction of an application. They run with
-- the rights of their owner, so a role needs no more than EXECUTE on the four that
-- it calls: rejoin_append, rejoin_append_text, rejoin_enqueue, rejoin_enqueue_text.
--
-- They decide as package feed does, in the same order and with the same words. A
-- refusal has the SQLSTATE RJ and the status that HTTP answers with. Strings with a
-- backslash are E'…': the caller's session may read others differently.

-- The limits of the node that started last.
CREATE TABLE rejoin.limits (
    single      boolean PRIMARY KEY DEFAULT true CHECK (single),
    event_bytes int NOT NULL DEFAULT 60000,       -- of one event's data in its longest form
    key_window  bigint NOT NULL DEFAULT 86400000  -- how long an idempotency key is remembered, in milliseconds
);

INSERT INTO rejoin.limits DEFAULT VALUES;

-- What applications have enqueued. A node numbers it, and deletes the row.
CREATE TABLE rejoin.queue (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    feed            text COLLATE "C" NOT NULL,
    type            text COLLATE "C" NOT NULL,
    data            text COLLATE "C" NOT NULL,
    json            boolean NOT NULL,
    idempotency_key text COLLATE "C",
    close           boolean NOT NULL,
    enqueued        timestamptz NOT NULL DEFAULT clock_timestamp()
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- The order in which rows of the queue are numbered: the order of the commits, and
-- within a transaction that of the rows. Every row that is committed has a place
-- above those that were committed before.
--
-- It is a table of its own because a place is given when the transaction commits. To
-- update the row then would copy it, and leave a dead one for each event: with 100
-- events in a transaction that took over half as long again. One place for each
-- transaction was no cheaper than one for each row, with 1 and with 100 events, and the
-- transaction would have to find it again: by its id, which another server gives again
-- after a dump is restored there, or by reading the table, because of which
-- serializable transactions would fail for nothing.
CREATE TABLE rejoin.queue_places (
    place bigint GENERATED ALWAYS AS IDENTITY (CACHE 1) PRIMARY KEY,
    id    bigint NOT NULL                         -- queue.id
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- What a node could not number when its turn came, and why.
CREATE TABLE rejoin.refused (
    id              bigint PRIMARY KEY,           -- as it was in the queue
    place           bigint NOT NULL,
    feed            text COLLATE "C" NOT NULL,
    type            text COLLATE "C" NOT NULL,
    data            text COLLATE "C" NOT NULL,
    json            boolean NOT NULL,
    idempotency_key text COLLATE "C",
    close           boolean NOT NULL,
    enqueued        timestamptz NOT NULL,
    refused         timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason          text NOT NULL
);

-- quote shows a refused value without repeating all of a huge one.
-- +goose StatementBegin
CREATE FUNCTION rejoin.quote(value text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
BEGIN
    RETURN to_json(left(value, 40))::text || CASE WHEN length(value) > 40 THEN '...' ELSE '' END;
END
$$;
-- +goose StatementEnd

-- checked_feed returns the name, and refuses what cannot name a feed: see
-- feed.CheckName.
-- +goose StatementBegin
CREATE FUNCTION rejoin.checked_feed(feed_name text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
DECLARE
    good text := substring(feed_name FROM '^[A-Za-z0-9][A-Za-z0-9._:@~-]*');
    hint text := 'Name the feed with a letter or digit, then letters, digits and . _ : @ ~ -, 255 characters at most.';
BEGIN
    IF feed_name IS NULL THEN
        RAISE EXCEPTION 'the feed is NULL' USING ERRCODE = 'RJ400', HINT = hint;
    ELSIF feed_name = '' OR octet_length(feed_name) > 255 THEN
        RAISE EXCEPTION 'a feed name has 1 to 255 characters, not %: %', octet_length(feed_name), rejoin.quote(feed_name)
            USING ERRCODE = 'RJ400', HINT = hint;
    ELSIF good IS DISTINCT FROM feed_name THEN
        RAISE EXCEPTION 'a feed name is a letter or digit, then letters, digits and . _ : @ ~ -; character % of % is not',
                coalesce(length(good), 0) + 1, rejoin.quote(feed_name)
            USING ERRCODE = 'RJ400', HINT = hint;
    END IF;
    RETURN feed_name;
END
$$;
-- +goose StatementEnd

-- clean_type returns the type as it is stored: see feed.CheckType.
-- +goose StatementBegin
CREATE FUNCTION rejoin.clean_type(event_type text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
DECLARE
    good text;
    hint text := 'A type is 1 to 100 letters, digits and . _ : / -; an empty one or NULL is none.';
BEGIN
    IF event_type IS NULL OR event_type IN ('', 'message') THEN
        RETURN '';
    END IF;
    good := substring(event_type FROM '^[A-Za-z0-9._:/-]*');
    IF octet_length(event_type) > 100 THEN
        RAISE EXCEPTION 'an event type has at most 100 characters, not %: %', octet_length(event_type), rejoin.quote(event_type)
            USING ERRCODE = 'RJ400', HINT = hint;
    ELSIF good <> event_type THEN
        RAISE EXCEPTION 'an event type is letters, digits and . _ : / -; character % of % is not', length(good) + 1, rejoin.quote(event_type)
            USING ERRCODE = 'RJ400', HINT = hint;
    ELSIF starts_with(event_type, 'feed.') THEN
        RAISE EXCEPTION 'event types that begin with "feed." belong to the server: %', rejoin.quote(event_type)
            USING ERRCODE = 'RJ400', HINT = 'Choose another beginning.';
    ELSIF event_type IN ('open', 'error') THEN
        RAISE EXCEPTION 'event type % would reach the connection listeners of a browser', rejoin.quote(event_type)
            USING ERRCODE = 'RJ400', HINT = 'Choose a type that says what has opened or failed, such as order.error.';
    END IF;
    RETURN event_type;
END
$$;
-- +goose StatementEnd

-- clean_data returns the data as it is stored, with LF for its line breaks: see
-- feed.Draft. most is the size limit.
-- +goose StatementBegin
CREATE FUNCTION rejoin.clean_data(event_data text, is_json boolean, most int) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
DECLARE
    bytes bigint := octet_length(event_data);
    framed bigint;      -- in the lines of an event stream
    quoted bigint := 0; -- as a JSON string, without the quotes around it
    hint text := 'Publish less at once, or a reference to the data. limits.event_bytes is the limit, and cannot be more than 60000.';
BEGIN
    IF event_data IS NULL THEN
        RAISE EXCEPTION 'the data is NULL' USING ERRCODE = 'RJ400', HINT = 'Pass an empty text, or the JSON value null.';
    ELSIF bytes > 2 * most::bigint THEN -- only CR LF shrinks, by half at most
        RAISE EXCEPTION 'the data has % bytes, the limit is %', bytes, most USING ERRCODE = 'RJ413', HINT = hint;
    END IF;
    IF strpos(event_data, E'\r') > 0 THEN
        event_data := replace(replace(event_data, E'\r\n', E'\n'), E'\r', E'\n');
        bytes := octet_length(event_data);
    END IF;
    IF bytes > most / 7 THEN -- a byte becomes 7 at most
        framed := bytes + 6 * (bytes - octet_length(replace(event_data, E'\n', '')));
        IF NOT is_json THEN
            -- to_json writes 2 bytes for \b and \f, which are 6 in an envelope, and
            -- leaves the 3 bytes of U+2028 and U+2029, which are 6, too.
            quoted := octet_length(to_json(event_data)::text) - 2
                + 4 * (bytes - octet_length(replace(replace(event_data, E'\b', ''), E'\f', '')))
                + bytes - octet_length(replace(replace(event_data, E'\u2028', ''), E'\u2029', ''));
        END IF;
        IF greatest(framed, quoted) <= most THEN
            NULL;
        ELSIF greatest(framed, quoted) = bytes THEN
            RAISE EXCEPTION 'the data has % bytes, the limit is %', bytes, most USING ERRCODE = 'RJ413', HINT = hint;
        ELSIF framed >= quoted THEN
            RAISE EXCEPTION 'the data has % bytes with each line break counted as 7, as an event stream carries it; the limit is %', framed, most
                USING ERRCODE = 'RJ413', HINT = hint;
        ELSE
            RAISE EXCEPTION 'the data has % bytes as a JSON string, which it is in an envelope (quotes, backslashes, tabs and line breaks take 2 bytes, other control characters 6); the limit is %', quoted, most
                USING ERRCODE = 'RJ413', HINT = hint;
        END IF;
    END IF;
    IF is_json THEN
        PERFORM rejoin.check_depth(event_data);
    END IF;
    RETURN event_data;
END
$$;
-- +goose StatementEnd

-- check_depth refuses JSON that is nested deeper than 500 levels, at which some
-- parsers fail.
-- +goose StatementBegin
CREATE FUNCTION rejoin.check_depth(json_text text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
DECLARE
    bytes int := octet_length(json_text);
    nested text;
BEGIN
    -- It cannot be deeper than its brackets are many, and counting these is quick.
    IF bytes <= 1000 OR bytes - octet_length(replace(replace(json_text, '[', ''), '{', '')) <= 500 THEN
        RETURN;
    END IF;
    nested := regexp_replace(json_text, E'"(?:[^"\\\\]|\\\\.)*"', '', 'g');
    nested := translate(regexp_replace(nested, E'[^][{}]+', '', 'g'), '{}', '[]');
    FOR level IN 1..500 LOOP
        EXIT WHEN nested = '' OR strpos(nested, repeat('[', 501)) > 0;
        nested := replace(nested, '[]', ''); -- the innermost
    END LOOP;
    IF nested <> '' THEN
        RAISE EXCEPTION 'the data is JSON that is nested deeper than 500 levels: %', rejoin.quote(json_text)
            USING ERRCODE = 'RJ400', HINT = 'Publish it as text, or flatten it.';
    END IF;
END
$$;
-- +goose StatementEnd

-- checked_key returns the idempotency key, and refuses what cannot be one: see
-- feed.CheckKey. NULL is none.
-- +goose StatementBegin
CREATE FUNCTION rejoin.checked_key(key_name text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
DECLARE
    good text := substring(key_name FROM '^[!-~]*');
    hint text := 'Use 1 to 255 visible ASCII characters, such as a UUID; NULL is none.';
BEGIN
    IF key_name = '' OR octet_length(key_name) > 255 THEN
        RAISE EXCEPTION 'an idempotency key has 1 to 255 characters, not %: %', octet_length(key_name), rejoin.quote(key_name)
            USING ERRCODE = 'RJ400', HINT = hint;
    ELSIF good <> key_name THEN
        RAISE EXCEPTION 'an idempotency key is visible ASCII; character % of % is not', length(good) + 1, rejoin.quote(key_name)
            USING ERRCODE = 'RJ400', HINT = hint;
    END IF;
    RETURN key_name;
END
$$;
-- +goose StatementEnd

-- refuse_state refuses a key and a time to live, which this version does not have.
-- +goose StatementBegin
CREATE FUNCTION rejoin.refuse_state(state_key text, ttl interval) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
BEGIN
    IF state_key IS NOT NULL THEN
        RAISE EXCEPTION 'this version has no keys: key is %', rejoin.quote(state_key)
            USING ERRCODE = 'RJ400', HINT = 'Leave key out. To publish once, pass idempotency_key.';
    ELSIF ttl IS NOT NULL THEN
        RAISE EXCEPTION 'this version has no keys, and so no times to live: ttl is %', rejoin.quote(ttl::text)
            USING ERRCODE = 'RJ400', HINT = 'Leave ttl out.';
    END IF;
END
$$;
-- +goose StatementEnd

-- fingerprint is what tells a batch from another with the same idempotency key. It is
-- that of a feed.Batch with this one draft.
-- +goose StatementBegin
CREATE FUNCTION rejoin.fingerprint(feed_name text, event_type text, event_data text, is_json boolean, closing boolean) RETURNS bytea
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
BEGIN
    RETURN sha256(convert_to(concat(closing::text, ' "', feed_name, '" "', event_type, '" ', is_json::text, ' ',
        octet_length(event_data), ':', event_data), 'UTF8'));
END
$$;
-- +goose StatementEnd

-- replayed returns the id of the event that was stored with the idempotency key, NULL
-- if the key is new or has expired.
-- +goose StatementBegin
CREATE FUNCTION rejoin.replayed(feed_name text, key_name text, key_print bytea, key_window bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
DECLARE
    now_ms bigint := floor(extract(epoch FROM clock_timestamp()) * 1000);
    known bytea;
    first_id bigint;
BEGIN
    SELECT k.print, k.firsts[1] INTO known, first_id
    FROM rejoin.feeds f JOIN rejoin.keys k ON k.feed = f.id
    WHERE f.name = feed_name AND k.key = key_name AND k.time > now_ms - key_window;
    IF known <> key_print THEN
        RAISE EXCEPTION 'idempotency key reused: %', rejoin.quote(key_name)
            USING ERRCODE = 'RJ422', HINT = 'The key came with another event before. Use a new key for each event, and the same one only to repeat it.';
    END IF;
    RETURN first_id;
END
$$;
-- +goose StatementEnd

-- append_event stores an event, or finds the one that was stored with its key: see
-- feed.PlanAppend. It locks the feed's row until the transaction ends.
-- +goose StatementBegin
CREATE FUNCTION rejoin.append_event(feed_name text, event_type text, event_data text, is_json boolean,
    state_key text, ttl interval, key_name text, expected_last bigint, closing boolean) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
DECLARE
    most int;
    window_ms bigint;
    print bytea;
    feed_id bigint;
    last_id bigint;
    last_time bigint;
    is_closed boolean;
    now_ms bigint;
    new_id bigint;
BEGIN
    SELECT l.event_bytes, l.key_window INTO STRICT most, window_ms FROM rejoin.limits l;
    feed_name := rejoin.checked_feed(feed_name);
    event_type := rejoin.clean_type(event_type);
    event_data := rejoin.clean_data(event_data, is_json, most);
    IF state_key IS NOT NULL OR ttl IS NOT NULL THEN
        PERFORM rejoin.refuse_state(state_key, ttl);
    END IF;
    key_name := rejoin.checked_key(key_name);
    closing := coalesce(closing, false);
    IF expected_last < 0 THEN
        RAISE EXCEPTION 'if_last is %, and no id is negative', expected_last
            USING ERRCODE = 'RJ400', HINT = 'Pass the id of the feed''s last event, 0 if it must have none, or NULL if it does not matter.';
    END IF;

    -- A known key decides alone, and needs no lock: nothing changes it before it
    -- expires.
    IF key_name IS NOT NULL THEN
        print := rejoin.fingerprint(feed_name, event_type, event_data, is_json, closing);
        new_id := rejoin.replayed(feed_name, key_name, print, window_ms);
        IF new_id IS NOT NULL THEN
            RETURN new_id;
        END IF;
    END IF;

    SELECT f.id, f.last, f.updated, f.closed INTO feed_id, last_id, last_time, is_closed
    FROM rejoin.feeds f WHERE f.name = feed_name FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        -- Waits for another transaction that is creating it. A transaction whose
        -- snapshot is older than the feed fails here.
        INSERT INTO rejoin.feeds (name) VALUES (feed_name) ON CONFLICT (name) DO NOTHING;
        SELECT f.id, f.last, f.updated, f.closed INTO STRICT feed_id, last_id, last_time, is_closed
        FROM rejoin.feeds f WHERE f.name = feed_name FOR NO KEY UPDATE;
    END IF;

    -- Another transaction may have stored the key until the feed was locked.
    IF key_name IS NOT NULL THEN
        new_id := rejoin.replayed(feed_name, key_name, print, window_ms);
        IF new_id IS NOT NULL THEN
            RETURN new_id;
        END IF;
    END IF;
    IF is_closed THEN
        RAISE EXCEPTION 'feed closed: %', feed_name
            USING ERRCODE = 'RJ409', HINT = 'A closed feed takes no more events. Publish to another feed.';
    ELSIF expected_last <> last_id THEN
        RAISE EXCEPTION 'the feed''s last event is %, not %: %', last_id, expected_last, feed_name
            USING ERRCODE = 'RJ412', HINT = 'Read the events after the one that you expected, decide anew, and pass the last id that you have seen.';
    END IF;

    -- A subscriber may see the event at once, so the commit must not be lost.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    new_id := last_id + 1;
    now_ms := floor(extract(epoch FROM clock_timestamp()) * 1000);
    last_time := greatest(last_time, now_ms);
    UPDATE rejoin.feeds f SET last = new_id, updated = last_time, bytes = f.bytes + octet_length(event_data), closed = closing
    WHERE f.id = feed_id;
    INSERT INTO rejoin.events (feed, seq, time, json, type, data)
    VALUES (feed_id, new_id, last_time, is_json, event_type, event_data);
    IF key_name IS NOT NULL THEN
        -- A key that exists has expired, and is replaced.
        INSERT INTO rejoin.keys (feed, key, print, firsts, times, time)
        VALUES (feed_id, key_name, print, ARRAY[new_id], ARRAY[last_time], now_ms)
        ON CONFLICT (feed, key) DO UPDATE
        SET print = excluded.print, time = excluded.time, firsts = excluded.firsts, times = excluded.times;
    END IF;
    -- Once for each feed and transaction, because Postgres folds equal notes of one.
    PERFORM pg_notify('rejoin', 'append ' || feed_name);
    RETURN new_id;
END
$$;
-- +goose StatementEnd

-- enqueue_event adds an event to the queue. It locks no feed.
-- +goose StatementBegin
CREATE FUNCTION rejoin.enqueue_event(feed_name text, event_type text, event_data text, is_json boolean,
    state_key text, ttl interval, key_name text, closing boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
DECLARE
    most int;
BEGIN
    SELECT l.event_bytes INTO STRICT most FROM rejoin.limits l;
    feed_name := rejoin.checked_feed(feed_name);
    event_type := rejoin.clean_type(event_type);
    event_data := rejoin.clean_data(event_data, is_json, most);
    IF state_key IS NOT NULL OR ttl IS NOT NULL THEN
        PERFORM rejoin.refuse_state(state_key, ttl);
    END IF;
    key_name := rejoin.checked_key(key_name);
    INSERT INTO rejoin.queue (feed, type, data, json, idempotency_key, close)
    VALUES (feed_name, event_type, event_data, is_json, key_name, coalesce(closing, false));
END
$$;
-- +goose StatementEnd

-- place_queued gives a row of the queue its place, when the transaction commits. From
-- then until the commit is visible it holds a lock (prepare.go: queueLock), so that
-- no other transaction gets a place in between: places are in the order of commits.
-- They may have holes.
-- +goose StatementBegin
CREATE FUNCTION rejoin.place_queued() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(125779902949744);
    INSERT INTO rejoin.queue_places (id) VALUES (NEW.id);
    -- What is enqueued follows from the caller's rows, and must not be lost if
    -- these were seen. This is the last moment at which it can be ensured.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    PERFORM pg_notify('rejoin', 'queue');
    RETURN NULL;
END
$$;
-- +goose StatementEnd

CREATE CONSTRAINT TRIGGER place_queued AFTER INSERT ON rejoin.queue
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION rejoin.place_queued();

-- The functions that applications call. COLLATE "C" holds for all arguments: they may
-- come from columns with collations of their own, of which some take two different
-- texts for the same.

-- +goose StatementBegin
CREATE FUNCTION rejoin.rejoin_append(feed text, type text, data jsonb, key text DEFAULT NULL, ttl interval DEFAULT NULL,
    idempotency_key text DEFAULT NULL, if_last bigint DEFAULT NULL, close boolean DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
BEGIN
    RETURN rejoin.append_event($1 COLLATE "C", $2, $3::text, true, $4, $5, $6, $7, $8);
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION rejoin.rejoin_append_text(feed text, type text, data text, key text DEFAULT NULL, ttl interval DEFAULT NULL,
    idempotency_key text DEFAULT NULL, if_last bigint DEFAULT NULL, close boolean DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
BEGIN
    RETURN rejoin.append_event($1 COLLATE "C", $2, $3, false, $4, $5, $6, $7, $8);
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION rejoin.rejoin_enqueue(feed text, type text, data jsonb, key text DEFAULT NULL, ttl interval DEFAULT NULL,
    idempotency_key text DEFAULT NULL, close boolean DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
BEGIN
    PERFORM rejoin.enqueue_event($1 COLLATE "C", $2, $3::text, true, $4, $5, $6, $7);
END
$$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION rejoin.rejoin_enqueue_text(feed text, type text, data text, key text DEFAULT NULL, ttl interval DEFAULT NULL,
    idempotency_key text DEFAULT NULL, close boolean DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
BEGIN
    PERFORM rejoin.enqueue_event($1 COLLATE "C", $2, $3, false, $4, $5, $6, $7);
END
$$;
-- +goose StatementEnd

-- The same names in the schema public, which is in most search paths, where this role
-- may create them and nobody has.
-- +goose StatementBegin
DO $do$
DECLARE
    f record;
BEGIN
    IF to_regnamespace('public') IS NULL OR NOT has_schema_privilege('public', 'CREATE') THEN
        RETURN;
    END IF;
    FOR f IN
        SELECT p.proname AS name, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result,
            (SELECT string_agg('$' || n, ', ' ORDER BY n) FROM generate_series(1, p.pronargs) n) AS passed
        FROM pg_proc p
        WHERE p.pronamespace = 'rejoin'::regnamespace
            AND p.proname IN ('rejoin_append', 'rejoin_append_text', 'rejoin_enqueue', 'rejoin_enqueue_text')
            AND NOT EXISTS (SELECT FROM pg_proc o WHERE o.pronamespace = 'public'::regnamespace AND o.proname = p.proname)
    LOOP
        EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s LANGUAGE plpgsql VOLATILE SECURITY DEFINER '
            'SET search_path = pg_catalog, rejoin, pg_temp AS %L', f.name, f.arguments, f.result,
            format('BEGIN %s rejoin.%I(%s); END', CASE f.result WHEN 'void' THEN 'PERFORM' ELSE 'RETURN' END, f.name, f.passed));
        EXECUTE format('REVOKE EXECUTE ON FUNCTION public.%I FROM PUBLIC', f.name);
    END LOOP;
END
$do$;
-- +goose StatementEnd

-- The functions are for those to whom their owner grants them.
-- +goose StatementBegin
DO $do$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN
        SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'rejoin'::regnamespace AND pg_has_role(p.proowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', f);
    END LOOP;
END
$do$;
-- +goose StatementEnd
