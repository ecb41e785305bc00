SELECT seq, octet_length(data) FROM events WHERE feed = ?1 AND seq >= ?2 AND seq < ?3 ORDER BY seq
