INSERT INTO keys (feed, name, print, starts, time) VALUES (?1, ?2, ?3, ?4, ?5)
ON CONFLICT (feed, name) DO UPDATE SET print = excluded.print, starts = excluded.starts, time = excluded.time
