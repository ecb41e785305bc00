-- The id, and what tells this database from a copy of it: its number, which a
-- copy on the same server does not have; the transaction that wrote the row,
-- which a dump that is put back does not keep; and the start of the server, which
-- no other server has, whether its files were copied, promoted or set back.
SELECT id, concat_ws(' ',
    (SELECT oid FROM pg_database WHERE datname = current_database()),
    xmin,
    (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint)
FROM rejoin.store
