INSERT INTO rejoin.events (feed, seq, time, json, type, data)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[], $5::text[], $6::text[])
