-- In the order that they are given in.
SELECT n.lock, pg_advisory_xact_lock(n.lock) FROM unnest($1::bigint[]) AS n (lock)
