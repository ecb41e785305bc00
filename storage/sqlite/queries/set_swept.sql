UPDATE feeds SET swept = ?2, bytes = bytes - ?3 WHERE id = ?1
