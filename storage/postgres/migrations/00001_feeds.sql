-- +goose Up
CREATE TABLE rejoin.store (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    id     text NOT NULL
);

-- A row is never deleted: the numbering of a feed goes on for ever. A feed whose last
-- is 0 was never written to. Every append updates the feed's row, in place as long as
-- the page has room.
CREATE TABLE rejoin.feeds (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name    text COLLATE "C" NOT NULL UNIQUE,
    first   bigint NOT NULL DEFAULT 1,        -- the oldest id kept; last + 1 when none is
    last    bigint NOT NULL DEFAULT 0,        -- the newest id ever given
    closed  boolean NOT NULL DEFAULT false,
    updated bigint NOT NULL DEFAULT 0         -- the time of the newest event, in Unix milliseconds
) WITH (fillfactor = 70);

CREATE TABLE rejoin.events (
    feed bigint NOT NULL,                     -- feeds.id
    seq  bigint NOT NULL,                     -- the event's id
    time bigint NOT NULL,                     -- Unix milliseconds; never falls within a feed
    json boolean NOT NULL,
    type text COLLATE "C" NOT NULL,
    data text COLLATE "C" NOT NULL,
    PRIMARY KEY (feed, seq)
);

-- make_feeds creates the feeds that do not exist. It leaves out any that another
-- transaction is creating at this moment, because waiting for that one could take any
-- time. Only an attempt shows whether there is one.
-- +goose StatementBegin
CREATE FUNCTION rejoin.make_feeds(names text[]) RETURNS void
LANGUAGE plpgsql
SET lock_timeout = '5ms'
AS $$
DECLARE
    missing text[] := ARRAY(
        SELECT n.name FROM unnest(names) AS n (name)
        WHERE NOT EXISTS (SELECT FROM rejoin.feeds f WHERE f.name = n.name)
        ORDER BY n.name COLLATE "C"
    );
    one text;
BEGIN
    IF missing = '{}' THEN
        RETURN;
    END IF;
    BEGIN
        INSERT INTO rejoin.feeds (name) SELECT unnest(missing) ON CONFLICT (name) DO NOTHING;
        RETURN;
    EXCEPTION WHEN lock_not_available THEN
        -- One of them: the others are made one by one.
    END;
    FOREACH one IN ARRAY missing LOOP
        BEGIN
            INSERT INTO rejoin.feeds (name) VALUES (one) ON CONFLICT (name) DO NOTHING;
        EXCEPTION WHEN lock_not_available THEN
        END;
    END LOOP;
END
$$;
-- +goose StatementEnd
