-- place is where in $1, from 1, the name stands, and at an id in that feed. The
-- time of the newest event is in the feed's row, so that a feed which has not
-- grown behind at costs no look at its events.
SELECT n.place, f.first, f.last, f.closed,
    CASE WHEN f.last > 0 THEN f.updated END,
    CASE WHEN n.at < f.first THEN NULL WHEN n.at = f.last THEN f.updated
        WHEN n.at < f.last THEN (SELECT e.time FROM rejoin.events e WHERE e.feed = f.id AND e.seq = n.at) END
FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS n (name, at, place) JOIN rejoin.feeds f ON f.name = n.name
