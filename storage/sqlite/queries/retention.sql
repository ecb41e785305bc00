-- name: list
-- Neither LIMIT nor the end of the prefix is here: the reader stops when it has
-- enough.
SELECT name, first, last, closed, updated, bytes FROM feeds
WHERE name >= max(?1, ?2) AND name <> ?2
ORDER BY name

-- name: trim
UPDATE feeds SET first = min(?2, last + 1) WHERE name = ?1 AND first < min(?2, last + 1)

-- name: get_unswept
SELECT id, swept, first FROM feeds INDEXED BY feeds_unswept WHERE swept < first LIMIT 1

-- name: size_events
SELECT seq, octet_length(data) FROM events WHERE feed = ?1 AND seq >= ?2 AND seq < ?3 ORDER BY seq

-- name: delete_events
DELETE FROM events WHERE feed = ?1 AND seq >= ?2 AND seq < ?3

-- name: set_swept
UPDATE feeds SET swept = ?2, bytes = bytes - ?3 WHERE id = ?1

-- name: delete_keys
DELETE FROM keys WHERE rowid IN (SELECT rowid FROM keys WHERE time <= ?1 ORDER BY time LIMIT ?2)
RETURNING 1
