-- With those that the transaction under way has added.
PRAGMA page_count
