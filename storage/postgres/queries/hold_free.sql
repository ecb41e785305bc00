-- Leaves out the feeds that another transaction holds.
SELECT name, id, last, updated, closed FROM rejoin.feeds WHERE name = ANY ($1)
ORDER BY name FOR NO KEY UPDATE SKIP LOCKED
