-- name: get_server
SELECT current_setting('server_version_num')::int, current_setting('server_encoding'), current_setting('fsync') = 'on'

-- name: backend
SELECT pg_backend_pid()

-- name: has_versions
SELECT to_regclass('rejoin.versions') IS NOT NULL

-- name: get_version
SELECT coalesce(max(version_id), 0) FROM rejoin.versions

-- name: try_lock
SELECT pg_try_advisory_lock($1)

-- name: unlock
SELECT pg_advisory_unlock($1)

-- name: has_schema
SELECT to_regnamespace('rejoin') IS NOT NULL

-- name: create_schema
CREATE SCHEMA rejoin

-- name: set_store_id
INSERT INTO rejoin.store (id) VALUES ($1) ON CONFLICT DO NOTHING

-- name: get_store_id
-- The id, and what distinguishes this database from a copy of it: its oid, which
-- differs in a copy on the same server; the transaction that wrote the row, which a
-- restored dump does not keep; and the start time of the server, which differs on
-- every other server, whether its files were copied, promoted or set back.
SELECT id, concat_ws(' ',
    (SELECT oid FROM pg_database WHERE datname = current_database()),
    xmin,
    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint)
FROM rejoin.store

-- name: set_limits
UPDATE rejoin.limits SET event_bytes = $1, key_window = $2
WHERE event_bytes <> $1 OR key_window <> $2

-- name: keep_commits_durable
-- Set even if it is on, so that a reload of the server's configuration cannot switch
-- it off in this session.
SELECT set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), false)
