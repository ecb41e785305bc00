UPDATE feeds SET first = min(?2, last + 1) WHERE name = ?1 AND first < min(?2, last + 1)
