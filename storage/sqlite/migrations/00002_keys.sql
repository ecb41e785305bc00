-- +goose Up
-- No reader sees events before first. Their rows are deleted later, a few at a time.
-- Rows below swept are deleted already.
ALTER TABLE feeds ADD COLUMN swept INTEGER NOT NULL DEFAULT 1;

-- The size of the data in the rows of the feed's events.
ALTER TABLE feeds ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
-- One scan, in the order of the rows: a GROUP BY would look up each, or sort them
-- all.
CREATE TEMP TABLE sizes (feed INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
INSERT INTO sizes SELECT feed, octet_length(data) FROM events NOT INDEXED WHERE true
ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes;
UPDATE feeds SET bytes = sizes.bytes FROM sizes WHERE sizes.feed = feeds.id;
DROP TABLE sizes;

CREATE INDEX feeds_unswept ON feeds (id) WHERE swept < first;

-- Batches that were published with a key, until the key expires. The events are not
-- here: a publisher that repeats the key sends the drafts again.
CREATE TABLE keys (
    feed   INTEGER NOT NULL,            -- feeds.id; 0 for batches about several feeds
    name   TEXT NOT NULL,
    print  BLOB NOT NULL,               -- the fingerprint of the batch
    starts BLOB NOT NULL,               -- where its events begin: see encodeStarts
    time   INTEGER NOT NULL,            -- Unix milliseconds
    PRIMARY KEY (feed, name)
) STRICT;
CREATE INDEX keys_time ON keys (time);
