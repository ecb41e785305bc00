-- name: list
-- Names that begin with $1 are at least $1 and below $2. There is always one row,
-- for the time. Appends leave rows of feeds in which nothing was stored.
SELECT n.now, f.name, f.first, f.last, f.closed, f.updated, f.bytes
FROM (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now) n LEFT JOIN LATERAL (
    SELECT * FROM rejoin.feeds
    WHERE name >= $1 AND name < $2 AND name > $3 AND (last > 0 OR closed)
    ORDER BY name LIMIT $4
) f ON true
ORDER BY f.name

-- name: trim
UPDATE rejoin.feeds SET first = least($2, last + 1) WHERE name = $1 AND first < least($2, last + 1)

-- name: sweep_keys
DELETE FROM rejoin.keys WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM rejoin.keys
    WHERE time <= floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint - $1
    ORDER BY time LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING time

-- name: unswept
SELECT id FROM rejoin.feeds WHERE swept < first ORDER BY id LIMIT $1

-- name: begin_sweep
-- If a crash undoes a sweep, the same rows are swept again.
SELECT set_config('lock_timeout', $1, true), set_config('synchronous_commit', 'off', true)

-- name: sweep_feed
-- No other transaction looks at these rows, so the feed is locked only once they are
-- deleted. The deleted ids are those from swept to below upto.
WITH target AS (
    SELECT id, swept, least(first, swept + $2) AS upto FROM rejoin.feeds WHERE id = $1 AND swept < first
), gone AS (
    DELETE FROM rejoin.events e USING target t
    WHERE e.feed = t.id AND e.seq >= t.swept AND e.seq < t.upto
    RETURNING octet_length(e.data) AS bytes
), total AS (
    SELECT coalesce(sum(bytes), 0) AS bytes FROM gone
)
UPDATE rejoin.feeds f SET swept = greatest(f.swept, t.upto), bytes = greatest(f.bytes - total.bytes, 0)
FROM target t, total WHERE f.id = t.id
RETURNING t.upto - t.swept

-- name: has_unswept
SELECT EXISTS (SELECT FROM rejoin.feeds WHERE swept < first) OR EXISTS (
    SELECT FROM rejoin.keys WHERE time <= floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint - $1
)
