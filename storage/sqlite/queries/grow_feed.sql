UPDATE feeds SET last = ?2, updated = ?3 WHERE id = ?1
