-- There is no LIMIT, and nothing about the prefix's end, as the reader stops when
-- it has enough.
SELECT name, first, last, closed, updated, bytes FROM feeds
WHERE name >= max(?1, ?2) AND name <> ?2
ORDER BY name
