SELECT id, last, updated, closed FROM feeds WHERE name = ?1
