-- place is where in the arrays, from 1, the key stands. Its feed is empty for the
-- keys of batches without a feed.
SELECT n.place, k.print, k.firsts, k.times, k.time
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (feed, key, place)
LEFT JOIN rejoin.feeds f ON f.name = n.feed
JOIN rejoin.keys k ON k.feed = CASE n.feed WHEN '' THEN 0 ELSE f.id END AND k.key = n.key
