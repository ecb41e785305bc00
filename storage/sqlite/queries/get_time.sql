SELECT time FROM events WHERE feed = ?1 AND seq = ?2
