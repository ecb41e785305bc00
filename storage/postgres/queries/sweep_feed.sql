-- Nobody else looks at the rows, so the feed itself is not locked before they are
-- gone. What has been deleted is the ids from swept to below upto.
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
