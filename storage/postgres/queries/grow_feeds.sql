UPDATE rejoin.feeds f SET last = g.last, updated = g.updated, bytes = f.bytes + g.bytes, closed = g.closed
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::boolean[]) AS g (id, last, updated, bytes, closed)
WHERE f.id = g.id
