-- What applications have enqueued is numbered in the order of the places, which is that
-- of their commits.

-- name: read_queue
-- The next $3 rows above the place $1, of all feeds but those in the array $2. No row
-- appears below a place that is committed. So a reader that has left nothing up to a
-- place can pass that, and skips the dead rows of what it has deleted; 0 is before
-- the first.
SELECT p.place, q.feed, q.type, q.data, q.json, q.idempotency_key, q.close
FROM rejoin.queue_places p JOIN rejoin.queue q ON q.id = p.id
WHERE p.place > $1 AND q.feed <> ALL ($2::text[])
ORDER BY p.place LIMIT $3

-- name: delete_queue
-- $1 has the places of the rows that were numbered.
WITH places AS (
    DELETE FROM rejoin.queue_places WHERE place = ANY ($1::bigint[]) RETURNING id
)
DELETE FROM rejoin.queue q USING places p WHERE q.id = p.id

-- name: refuse_queue
-- $1 has the places of the rows that cannot be numbered, and $2 the reasons.
WITH places AS (
    DELETE FROM rejoin.queue_places p USING unnest($1::bigint[], $2::text[]) AS n (place, reason)
    WHERE p.place = n.place RETURNING p.place, p.id, n.reason
), rows AS (
    DELETE FROM rejoin.queue q USING places p WHERE q.id = p.id RETURNING q.*, p.place, p.reason
)
INSERT INTO rejoin.refused (place, id, feed, type, data, json, idempotency_key, close, enqueued, reason)
SELECT place, id, feed, type, data, json, idempotency_key, close, enqueued, reason FROM rows
