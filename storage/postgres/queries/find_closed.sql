-- Are all of the feeds closed, each behind the id that it was closed behind?
SELECT bool_and(coalesce(f.closed AND f.last = w.last, false))
FROM unnest($1::bigint[], $2::bigint[]) AS w (feed, last) LEFT JOIN rejoin.feeds f ON f.id = w.feed
