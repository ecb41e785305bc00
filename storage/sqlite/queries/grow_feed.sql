UPDATE feeds SET last = ?2, updated = ?3, closed = ?4, bytes = bytes + ?5 WHERE id = ?1
