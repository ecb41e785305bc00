SELECT print, starts, time FROM keys WHERE feed = ?1 AND name = ?2
