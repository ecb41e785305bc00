-- In the order of the names, as everybody does, so that no two transactions wait
-- for each other.
SELECT name, id, last, updated, closed FROM rejoin.feeds WHERE name = ANY ($1)
ORDER BY name FOR NO KEY UPDATE
