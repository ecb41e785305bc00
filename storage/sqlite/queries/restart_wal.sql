-- The next commit writes the log from its beginning. It keeps its room on the disk.
PRAGMA wal_checkpoint(RESTART)
