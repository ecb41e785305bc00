-- 16 MB of pages, so that the newest page of each of some thousands of feeds
-- stays in memory, and a checkpoint each 4,000 pages instead of 1,000: a page
-- that is written again and again in between is copied to the file once.
PRAGMA cache_size = -16384;
PRAGMA wal_autocheckpoint = 4000
