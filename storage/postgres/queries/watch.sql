-- name: listen
LISTEN rejoin

-- name: notify
SELECT pg_notify($1, $2)

-- name: notify_all
SELECT pg_notify($1, n.payload) FROM unnest($2::text[]) AS n (payload)

-- name: news
-- For each feed of $1, whose place counts from 1: its end, and its first $3 events after
-- the id in $2, one a row, as long as the data of all rows before has less than $4
-- bytes. A feed without events there is one row whose event is NULL.
SELECT place, last, closed, seq, time, json, type, data
FROM (
    SELECT a.place, f.last, f.closed, e.seq, e.time, e.json, e.type, e.data,
        sum(octet_length(e.data)) OVER (ORDER BY a.place, e.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS a (name, after, place)
    JOIN rejoin.feeds f ON f.name = a.name
    LEFT JOIN LATERAL (
        SELECT seq, time, json, type, data FROM rejoin.events
        WHERE feed = f.id AND seq > greatest(a.after, f.first - 1)
        ORDER BY seq LIMIT $3
    ) e ON true
) n
WHERE coalesce(before, 0) < $4
ORDER BY place, seq

-- name: try_drain
SELECT pg_try_advisory_xact_lock($1)
