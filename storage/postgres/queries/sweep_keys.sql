DELETE FROM rejoin.keys WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM rejoin.keys
    WHERE time <= floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint - $1
    ORDER BY time LIMIT $2 FOR UPDATE SKIP LOCKED
)) RETURNING time
