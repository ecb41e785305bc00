-- Of each event that should be there: is it, or is it no longer kept?
SELECT coalesce(e.time = w.time AND e.json = w.json AND e.type = w.type AND e.data = w.data, false),
       coalesce(f.first > w.seq, false)
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[], $5::text[], $6::text[])
         AS w (feed, seq, time, json, type, data)
LEFT JOIN rejoin.feeds f ON f.id = w.feed
LEFT JOIN rejoin.events e ON e.feed = w.feed AND e.seq = w.seq
