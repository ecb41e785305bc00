-- name: get_mark
PRAGMA application_id

-- name: set_mark
-- "Rjoi" in ASCII. It tells our files from those of other programs: see mark.
PRAGMA application_id = 1382707049

-- name: is_empty
SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)

-- name: schema_version
SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied

-- name: set_store_id
INSERT INTO store (only, id) VALUES (1, ?1) ON CONFLICT DO NOTHING

-- name: get_store_id
SELECT id FROM store

-- name: touch_tables
-- Reads the root page of each table, through columns that no index has: a cheap
-- check that the tables are sound.
SELECT (SELECT id FROM store), (SELECT updated FROM feeds LIMIT 1), (SELECT time FROM events LIMIT 1),
    (SELECT print FROM keys LIMIT 1)
