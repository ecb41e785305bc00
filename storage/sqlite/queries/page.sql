-- One statement, so that bounds and events come from one snapshot. A feed with
-- no event after the cursor is one row whose event is NULL. The events before
-- first may still have rows, which the search has to leap over.
--
-- The plus hides the parameter from the planner, and there is no LIMIT, as the
-- reader stops when it has enough: where the planner looks at a parameter of a
-- join or of LIMIT, SQLite compiles the statement anew for each page.
SELECT f.first, f.last, f.closed, e.seq, e.type, e.data, e.json, e.time
FROM feeds f LEFT JOIN events e ON e.feed = f.id AND e.seq > max(?2, f.first - 1)
WHERE f.name = +?1
ORDER BY e.seq
