DELETE FROM events WHERE feed = ?1 AND seq >= ?2 AND seq < ?3
