-- The feed of a key is empty for the space of the batches for several feeds.
SELECT n.feed, n.key, k.print, k.firsts, k.times, k.time
FROM unnest($1::text[], $2::text[]) AS n (feed, key)
LEFT JOIN rejoin.feeds f ON f.name = n.feed
JOIN rejoin.keys k ON k.feed = CASE n.feed WHEN '' THEN 0 ELSE f.id END AND k.key = n.key
