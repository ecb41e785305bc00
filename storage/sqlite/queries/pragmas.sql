-- name: tune_writer
-- A checkpoint every 4,000 pages instead of 1,000, so that a page that is written
-- many times in between is copied to the file once.
PRAGMA wal_autocheckpoint = 4000

-- name: get_page_size
PRAGMA page_size

-- name: count_pages
-- Includes the pages that the current transaction has added.
PRAGMA page_count

-- name: truncate_wal
PRAGMA wal_checkpoint(TRUNCATE)

-- name: restart_wal
-- The next commit writes the log from its beginning. The log keeps its size.
PRAGMA wal_checkpoint(RESTART)

-- name: wait_for_nobody
PRAGMA busy_timeout = 0

-- name: wait_for_others
PRAGMA busy_timeout = 5000

-- name: shrink_memory
-- Drops the pages that are cached in memory.
PRAGMA shrink_memory
