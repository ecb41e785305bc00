SELECT id, first, last FROM feeds WHERE name = ?1
