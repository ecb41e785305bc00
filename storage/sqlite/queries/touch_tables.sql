-- Reads the root page of each table (of columns that no index has): a cheap
-- look at whether they are sound.
SELECT (SELECT id FROM store), (SELECT updated FROM feeds LIMIT 1), (SELECT time FROM events LIMIT 1),
    (SELECT print FROM keys LIMIT 1)
