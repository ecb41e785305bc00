UPDATE rejoin.feeds SET first = least($2, last + 1) WHERE name = $1 AND first < least($2, last + 1)
