-- One statement, so that bounds and events come from one snapshot. A feed with
-- no event after the cursor is one row whose event is NULL. The page ends with
-- the event that reaches $4 bytes. Rows below first are no events any more.
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
