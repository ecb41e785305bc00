-- name: outcome
-- A commit that waits for a standby (SyncRep) must not be cut short.
SELECT pg_xact_status($1::text::xid8), (
    SELECT a.wait_event IS DISTINCT FROM 'SyncRep' FROM pg_stat_activity a
    WHERE a.pid = $2 AND a.datname = current_database()
      AND a.backend_xid = $1::text::xid8::xid AND a.usename = current_user
)

-- name: end_backend
SELECT pg_terminate_backend($2::int) FROM pg_stat_activity a
WHERE a.pid = $2 AND a.datname = current_database()
  AND a.backend_xid = $1::text::xid8::xid AND a.usename = current_user

-- name: find_events
-- For each event: is it stored, and has it been trimmed?
SELECT coalesce(e.time = w.time AND e.json = w.json AND e.type = w.type AND e.data = w.data, false),
       coalesce(f.first > w.seq, false)
FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[], $5::text[], $6::text[])
         AS w (feed, seq, time, json, type, data)
LEFT JOIN rejoin.feeds f ON f.id = w.feed
LEFT JOIN rejoin.events e ON e.feed = w.feed AND e.seq = w.seq

-- name: find_closed
-- Are all of the feeds closed, each behind the given id?
SELECT bool_and(coalesce(f.closed AND f.last = w.last, false))
FROM unnest($1::bigint[], $2::bigint[]) AS w (feed, last) LEFT JOIN rejoin.feeds f ON f.id = w.feed

-- name: find_key
SELECT EXISTS (
    SELECT FROM rejoin.keys
    WHERE feed = $1 AND key = $2 AND print = $3 AND time = $4 AND firsts = $5 AND times = $6
)
