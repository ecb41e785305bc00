SELECT EXISTS (SELECT FROM rejoin.feeds WHERE swept < first) OR EXISTS (
    SELECT FROM rejoin.keys WHERE time <= floor(extract(epoch FROM statement_timestamp()) * 1000)::bigint - $1
)
