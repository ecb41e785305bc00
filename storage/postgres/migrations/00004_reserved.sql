-- +goose Up

-- checked_feed returns the name, and refuses what cannot name a feed that an application
-- may publish to: see feed.CheckWritable.
-- +goose StatementBegin
CREATE OR REPLACE FUNCTION rejoin.checked_feed(feed_name text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, rejoin, pg_temp
AS $$
DECLARE
    good text := substring(feed_name FROM '^[A-Za-z0-9][A-Za-z0-9._:@~-]*');
    hint text := 'Name the feed with a letter or digit, then letters, digits and . _ : @ ~ -, 255 characters at most.';
BEGIN
    IF feed_name IS NULL THEN
        RAISE EXCEPTION 'the feed is NULL' USING ERRCODE = 'RJ400', HINT = hint;
    ELSIF feed_name = '' OR octet_length(feed_name) > 255 THEN
        RAISE EXCEPTION 'a feed name has 1 to 255 characters, not %: %', octet_length(feed_name), rejoin.quote(feed_name)
            USING ERRCODE = 'RJ400', HINT = hint;
    ELSIF good IS DISTINCT FROM feed_name THEN
        RAISE EXCEPTION 'a feed name is a letter or digit, then letters, digits and . _ : @ ~ -; character % of % is not',
                coalesce(length(good), 0) + 1, rejoin.quote(feed_name)
            USING ERRCODE = 'RJ400', HINT = hint;
    ELSIF starts_with(feed_name, 'feed.') THEN
        RAISE EXCEPTION 'feed names that begin with "feed." belong to the server: %', rejoin.quote(feed_name)
            USING ERRCODE = 'RJ400', HINT = 'Choose another beginning.';
    END IF;
    RETURN feed_name;
END
$$;
-- +goose StatementEnd
