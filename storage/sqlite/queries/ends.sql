-- ?1 is a JSON array of pairs, of a name and an id; place is where in it a pair
-- stands. The time of the newest event is in the feed's row, so that a feed which
-- has not grown behind the id costs no look at its events.
SELECT pair.key AS place, f.first, f.last, f.closed,
    CASE WHEN f.last > 0 THEN f.updated END,
    CASE WHEN pair.value ->> 1 < f.first THEN NULL WHEN pair.value ->> 1 = f.last THEN f.updated
        WHEN pair.value ->> 1 < f.last THEN (SELECT e.time FROM events e WHERE e.feed = f.id AND e.seq = pair.value ->> 1) END
FROM json_each(?1) pair JOIN feeds f ON f.name = pair.value ->> 0
