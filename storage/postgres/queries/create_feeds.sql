-- Waits for a transaction that is making one of them.
INSERT INTO rejoin.feeds (name)
SELECT n.name FROM unnest($1::text[]) AS n (name)
WHERE NOT EXISTS (SELECT FROM rejoin.feeds f WHERE f.name = n.name)
ORDER BY n.name COLLATE "C"
ON CONFLICT (name) DO NOTHING
