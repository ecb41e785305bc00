SELECT pg_terminate_backend($2::int) FROM pg_stat_activity a
WHERE a.pid = $2 AND a.datname = current_database()
  AND a.backend_xid = $1::text::xid8::xid AND a.usename = current_user
