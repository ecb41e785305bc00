INSERT INTO feeds (name, first, last, updated) VALUES (?1, 1, 0, ?2) RETURNING id
