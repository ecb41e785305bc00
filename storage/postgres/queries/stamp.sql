SELECT pg_current_xact_id()::text, floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint
