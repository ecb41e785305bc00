-- Ids and times of a feed go up together, so that halving the ids finds a time,
-- and no index on the time is needed. The oldest event comes first: it is what
-- retention asks about. NULL means that an event is missing.
WITH RECURSIVE feed AS (
    SELECT id, first, last FROM rejoin.feeds WHERE name = $1
), search (low, high, probe) AS (
    SELECT first, last + 1, first FROM feed
    UNION ALL
    SELECT n.low, n.high, n.low + (n.high - n.low) / 2
    FROM search s
    JOIN rejoin.events e ON e.feed = (SELECT id FROM feed) AND e.seq = s.probe
    CROSS JOIN LATERAL (
        SELECT CASE WHEN e.time < $2 THEN s.probe + 1 ELSE s.low END,
               CASE WHEN e.time < $2 THEN s.high ELSE s.probe END
    ) n (low, high)
    WHERE s.low < s.high
)
SELECT s.low - 1 FROM feed LEFT JOIN search s ON s.low = s.high
