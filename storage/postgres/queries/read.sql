-- name: page
-- One statement, so that bounds and events come from one snapshot. A feed without
-- events after the cursor is one row whose event is NULL. The page ends with the
-- event that reaches $4 bytes. Rows below first are trimmed events.
SELECT f.first, f.last, f.closed, e.seq, e.time, e.json, e.type, e.data
FROM rejoin.feeds f LEFT JOIN LATERAL (
    SELECT *, sum(octet_length(data)) OVER (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM (
        SELECT seq, time, json, type, data FROM rejoin.events
        WHERE feed = f.id AND seq > greatest($2, f.first - 1)
        ORDER BY seq LIMIT $3
    ) next
) e ON coalesce(e.before, 0) < $4
WHERE f.name = $1
ORDER BY e.seq

-- name: bounds
-- place is the position of the name in $1, from 1.
SELECT n.place, f.first, f.last, f.closed
FROM unnest($1::text[]) WITH ORDINALITY AS n (name, place) JOIN rejoin.feeds f ON f.name = n.name

-- name: ends
-- place is the position of the name in $1, from 1; at is the id asked about. The
-- time of the newest event is in the feed's row, so a feed that has not grown since
-- at needs no look at its events.
SELECT n.place, f.first, f.last, f.closed,
    CASE WHEN f.last > 0 THEN f.updated END,
    CASE WHEN n.at < f.first THEN NULL WHEN n.at = f.last THEN f.updated
        WHEN n.at < f.last THEN (SELECT e.time FROM rejoin.events e WHERE e.feed = f.id AND e.seq = n.at) END
FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS n (name, at, place) JOIN rejoin.feeds f ON f.name = n.name

-- name: seek
-- Times rise with the ids of a feed, so a binary search of the ids finds a time and
-- needs no index on the time. The oldest event comes first, because retention asks
-- about it most. NULL means that an event is missing.
WITH RECURSIVE feed AS (
    SELECT id, first, last FROM rejoin.feeds WHERE name = $1
), search (low, high, probe) AS (
    SELECT first, last + 1, first FROM feed
    UNION ALL
    SELECT n.low, n.high, n.low + (n.high - n.low) / 2
    FROM search s
    JOIN rejoin.events e ON e.feed = (SELECT id FROM feed) AND e.seq = s.probe
    CROSS JOIN LATERAL (
        SELECT CASE WHEN e.time < $2 THEN s.probe + 1 ELSE s.low END,
               CASE WHEN e.time < $2 THEN s.high ELSE s.probe END
    ) n (low, high)
    WHERE s.low < s.high
)
SELECT s.low - 1 FROM feed LEFT JOIN search s ON s.low = s.high
