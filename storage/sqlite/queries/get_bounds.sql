SELECT id, first, last, closed, updated FROM feeds WHERE name = ?1
