INSERT INTO events (feed, seq, type, data, json, time) VALUES (?, ?, ?, ?, ?, ?)
