-- Leaves out those that another transaction holds.
SELECT n.lock FROM unnest($1::bigint[]) AS n (lock) WHERE pg_try_advisory_xact_lock(n.lock)
