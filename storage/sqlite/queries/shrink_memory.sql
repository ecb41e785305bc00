-- Gives up the pages that are kept in memory.
PRAGMA shrink_memory
