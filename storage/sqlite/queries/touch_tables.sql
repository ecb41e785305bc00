-- Reads the root page of each table: a cheap look at whether they are sound.
SELECT (SELECT id FROM store), (SELECT id FROM feeds LIMIT 1), (SELECT feed FROM events LIMIT 1)
