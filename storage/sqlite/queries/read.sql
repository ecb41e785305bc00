-- name: page
-- One statement, so that bounds and events come from one snapshot. A feed without
-- events after the cursor is one row whose event is NULL. Events before first may
-- still have rows; the search skips them.
--
-- The plus hides the parameter from the planner, and there is no LIMIT because the
-- reader stops when it has enough: if the planner looks at a parameter of a join or
-- of LIMIT, SQLite compiles the statement again for each page.
SELECT f.first, f.last, f.closed, e.seq, e.type, e.data, e.json, e.time
FROM feeds f LEFT JOIN events e ON e.feed = f.id AND e.seq > max(?2, f.first - 1)
WHERE f.name = +?1
ORDER BY e.seq

-- name: bounds
-- ?1 is a JSON array of names; place is the index of the name in it.
SELECT name.key AS place, f.first, f.last, f.closed
FROM json_each(?1) name JOIN feeds f ON f.name = name.value

-- name: ends
-- ?1 is a JSON array of pairs of a name and an id; place is the index of the pair.
-- The time of the newest event is in the feed's row, so a feed that has not grown
-- since the id needs no look at its events.
SELECT pair.key AS place, f.first, f.last, f.closed,
    CASE WHEN f.last > 0 THEN f.updated END,
    CASE WHEN pair.value ->> 1 < f.first THEN NULL WHEN pair.value ->> 1 = f.last THEN f.updated
        WHEN pair.value ->> 1 < f.last THEN (SELECT e.time FROM events e WHERE e.feed = f.id AND e.seq = pair.value ->> 1) END
FROM json_each(?1) pair JOIN feeds f ON f.name = pair.value ->> 0

-- name: get_bounds
SELECT id, first, last, closed, updated FROM feeds WHERE name = ?1

-- name: get_time
SELECT time FROM events WHERE feed = ?1 AND seq = ?2
