SELECT id FROM rejoin.feeds WHERE swept < first ORDER BY id LIMIT $1
