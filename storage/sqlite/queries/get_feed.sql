SELECT id, last, updated FROM feeds WHERE name = ?1
