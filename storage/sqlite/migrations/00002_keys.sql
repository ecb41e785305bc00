-- +goose Up
-- Events before first are given up, and no reader sees them. Their rows are
-- removed later, a few at a time: those below swept are gone.
ALTER TABLE feeds ADD COLUMN swept INTEGER NOT NULL DEFAULT 1;

-- Of the data of its events' rows.
ALTER TABLE feeds ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
-- One scan, in the order of the rows: a GROUP BY would look up each, or sort them
-- all.
CREATE TEMP TABLE sizes (feed INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
INSERT INTO sizes SELECT feed, octet_length(data) FROM events NOT INDEXED WHERE true
ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
UPDATE feeds SET bytes = sizes.bytes FROM sizes WHERE sizes.feed = feeds.id;
DROP TABLE sizes;

CREATE INDEX feeds_unswept ON feeds (id) WHERE swept < first;

-- What was published with a key, until the key is too old. The events themselves
-- are not here: whoever repeats the key brings the drafts.
CREATE TABLE keys (
    feed   INTEGER NOT NULL,            -- feeds.id; 0 for batches about several feeds
    name   TEXT NOT NULL,
    print  BLOB NOT NULL,               -- tells the batch from others
    starts BLOB NOT NULL,               -- where its events begin: see encodeStarts
    time   INTEGER NOT NULL,            -- Unix milliseconds
    PRIMARY KEY (feed, name)
) STRICT;
CREATE INDEX keys_time ON keys (time);
