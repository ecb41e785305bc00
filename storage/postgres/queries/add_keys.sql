-- One that is there already is expired. A key has places low to high, from 1, of
-- the first ids and times.
INSERT INTO rejoin.keys (feed, key, print, time, firsts, times)
SELECT n.feed, n.key, n.print, $6::bigint, ($7::bigint[])[n.low : n.high], ($8::bigint[])[n.low : n.high]
FROM unnest($1::bigint[], $2::text[], $3::bytea[], $4::bigint[], $5::bigint[]) AS n (feed, key, print, low, high)
ON CONFLICT (feed, key) DO UPDATE
SET print = excluded.print, time = excluded.time, firsts = excluded.firsts, times = excluded.times
