-- An append sends the statements down to stamp in its first round trip, and the
-- others with COMMIT in its second.

-- name: set_lock_timeout
SELECT set_config('lock_timeout', $1, true)

-- name: lock_free
-- Skips the locks that another transaction holds.
SELECT n.lock FROM unnest($1::bigint[]) AS n (lock) WHERE pg_try_advisory_xact_lock(n.lock)

-- name: lock_all
-- In the order of the array.
SELECT n.lock, pg_advisory_xact_lock(n.lock) FROM unnest($1::bigint[]) AS n (lock)

-- name: make_feeds
-- Skips the feeds that another transaction is creating.
SELECT rejoin.make_feeds($1)

-- name: create_feeds
-- Waits for another transaction that is creating one of them.
INSERT INTO rejoin.feeds (name)
SELECT n.name FROM unnest($1::text[]) AS n (name)
WHERE NOT EXISTS (SELECT FROM rejoin.feeds f WHERE f.name = n.name)
ORDER BY n.name COLLATE "C"
ON CONFLICT (name) DO NOTHING

-- name: hold_free
-- Skips the feeds that another transaction holds.
SELECT name, id, last, updated, closed FROM rejoin.feeds WHERE name = ANY ($1)
ORDER BY name FOR NO KEY UPDATE SKIP LOCKED

-- name: hold_all
-- Every transaction locks in the order of the names, so that no two wait for each
-- other.
SELECT name, id, last, updated, closed FROM rejoin.feeds WHERE name = ANY ($1)
ORDER BY name FOR NO KEY UPDATE

-- name: find_keys
-- place is the position of the key in the arrays, from 1. Its feed is empty for the
-- keys of batches without a feed.
SELECT n.place, k.print, k.firsts, k.times, k.time
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (feed, key, place)
LEFT JOIN rejoin.feeds f ON f.name = n.feed
JOIN rejoin.keys k ON k.feed = CASE n.feed WHEN '' THEN 0 ELSE f.id END AND k.key = n.key

-- name: stamp
SELECT pg_current_xact_id()::text, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint

-- name: grow_feeds
UPDATE rejoin.feeds f SET last = g.last, updated = g.updated, bytes = f.bytes + g.bytes, closed = g.closed
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::boolean[]) AS g (id, last, updated, bytes, closed)
WHERE f.id = g.id

-- name: add_events
INSERT INTO rejoin.events (feed, seq, time, json, type, data)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[], $5::text[], $6::text[])

-- name: add_keys
-- A key that exists has expired, and is replaced. The places low to high, from 1,
-- of the first ids and times belong to the key.
INSERT INTO rejoin.keys (feed, key, print, time, firsts, times)
SELECT n.feed, n.key, n.print, $6::bigint, ($7::bigint[])[n.low : n.high], ($8::bigint[])[n.low : n.high]
FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[]) AS n (feed, key, print, low, high)
ON CONFLICT (feed, key) DO UPDATE
SET print = excluded.print, time = excluded.time, firsts = excluded.firsts, times = excluded.times
