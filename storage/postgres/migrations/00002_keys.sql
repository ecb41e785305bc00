-- +goose Up

-- The index on feeds that have something to sweep is about columns that no append
-- changes, so that appends go on updating rows in place.
ALTER TABLE rejoin.feeds
    ADD COLUMN swept bigint NOT NULL DEFAULT 1, -- the lowest id whose row may still be there; at most first
    ADD COLUMN bytes bigint NOT NULL DEFAULT 0; -- the size of the data in the rows that are there

UPDATE rejoin.feeds f SET swept = n.swept, bytes = n.bytes
FROM (
    SELECT f.id, least(f.first, min(e.seq)) AS swept, coalesce(sum(octet_length(e.data)), 0) AS bytes
    FROM rejoin.feeds f LEFT JOIN rejoin.events e ON e.feed = f.id
    GROUP BY f.id
) n
WHERE n.id = f.id;

CREATE INDEX feeds_unswept ON rejoin.feeds (id) WHERE swept < first;

-- The outcomes of batches that have a key. The events of a batch follow from its
-- drafts: in each feed, the ids are dense and the times are the same.
CREATE TABLE rejoin.keys (
    feed   bigint NOT NULL,                   -- feeds.id; 0 for batches for several feeds
    key    text COLLATE "C" NOT NULL,
    print  bytea NOT NULL,                    -- the fingerprint of the batch
    firsts bigint[] NOT NULL,                 -- the first id in each of its feeds, in the order of the drafts
    times  bigint[] NOT NULL,                 -- the events' time in each
    time   bigint NOT NULL,                   -- of the batch, by the server's clock, in Unix milliseconds
    PRIMARY KEY (feed, key)
);

CREATE INDEX keys_time ON rejoin.keys (time);
