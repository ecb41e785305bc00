-- The names that begin with $1 are those from $1 to below $2. One row at least,
-- for the time. Appends leave rows of feeds behind that nothing was stored in.
SELECT n.now, f.name, f.first, f.last, f.closed, f.updated, f.bytes
FROM (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now) n LEFT JOIN LATERAL (
    SELECT * FROM rejoin.feeds
    WHERE name >= $1 AND name < $2 AND name > $3 AND (last > 0 OR closed)
    ORDER BY name LIMIT $4
) f ON true
ORDER BY f.name
