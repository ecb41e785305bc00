-- +goose Up
-- Events before first are given up, and no reader sees them. Their rows are
-- removed later, a few at a time: those below swept are gone.
ALTER TABLE feeds ADD COLUMN swept INTEGER NOT NULL DEFAULT 1;

-- Of the data of its events' rows.
ALTER TABLE feeds ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE feeds SET bytes = size.bytes
FROM (SELECT feed, sum(octet_length(data)) AS bytes FROM events GROUP BY feed) size
WHERE size.feed = feeds.id;

CREATE INDEX feeds_unswept ON feeds (id) WHERE swept < first;

-- What was published with a key, until the key is too old. The events themselves
-- are not here: whoever repeats the key brings the drafts.
CREATE TABLE keys (
    feed   INTEGER NOT NULL,            -- feeds.id; 0 for batches about several feeds
    name   TEXT NOT NULL,
    print  BLOB NOT NULL,               -- tells the batch from others
    starts BLOB NOT NULL,               -- where its events begin: see startsOf
    time   INTEGER NOT NULL,            -- Unix milliseconds
    PRIMARY KEY (feed, name)
) STRICT;
CREATE INDEX keys_time ON keys (time);
