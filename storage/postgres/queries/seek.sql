-- Ids and times of a feed go up together, so that halving the ids finds a time,
-- and no index on the time is needed. NULL means that an event is missing.
WITH RECURSIVE feed AS (
    SELECT id, first, last FROM rejoin.feeds WHERE name = $1
), search (low, high) AS (
    SELECT first, last + 1 FROM feed
    UNION ALL
    SELECT CASE WHEN e.time < $2 THEN s.middle + 1 ELSE s.low END,
           CASE WHEN e.time < $2 THEN s.high ELSE s.middle END
    FROM (SELECT low, high, low + (high - low) / 2 AS middle FROM search WHERE low < high) s
    JOIN rejoin.events e ON e.feed = (SELECT id FROM feed) AND e.seq = s.middle
)
SELECT s.low - 1 FROM feed LEFT JOIN search s ON s.low = s.high
