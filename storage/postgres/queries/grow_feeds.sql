UPDATE rejoin.feeds f SET last = g.last, updated = g.updated
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) AS g (id, last, updated)
WHERE f.id = g.id
