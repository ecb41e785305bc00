-- name: get_version
-- Differs from before if another connection has changed the file.
PRAGMA data_version

-- name: get_feed
SELECT id, last, updated, closed FROM feeds WHERE name = ?1

-- name: get_key
SELECT print, starts, time FROM keys WHERE feed = ?1 AND name = ?2

-- name: add_feed
INSERT INTO feeds (name, first, last, updated) VALUES (?1, 1, 0, ?2) RETURNING id

-- name: add_events
-- Sixteen rows at a time cost about half of what they cost one by one.
INSERT INTO events (feed, seq, type, data, json, time) VALUES
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?),
    (?, ?, ?, ?, ?, ?)

-- name: add_event
INSERT INTO events (feed, seq, type, data, json, time) VALUES (?, ?, ?, ?, ?, ?)

-- name: set_key
INSERT INTO keys (feed, name, print, starts, time) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (feed, name) DO UPDATE SET print = excluded.print, starts = excluded.starts, time = excluded.time

-- name: grow_feed
UPDATE feeds SET last = ?2, updated = ?3, closed = ?4, bytes = bytes + ?5 WHERE id = ?1
