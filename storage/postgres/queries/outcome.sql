-- SyncRep is a commit that waits for a standby: it is not to be cut short.
SELECT pg_xact_status($1::text::xid8), (
    SELECT a.wait_event IS DISTINCT FROM 'SyncRep' FROM pg_stat_activity a
    WHERE a.pid = $2 AND a.datname = current_database()
      AND a.backend_xid = $1::text::xid8::xid AND a.usename = current_user
)
