-- name: get_clock
SELECT clock_timestamp()

-- name: get_database
-- Distinguishes this database from others, and this server from others.
SELECT concat_ws(' ', (SELECT oid FROM pg_database WHERE datname = current_database()), pg_postmaster_start_time())

-- name: missing_privileges
-- What this role lacks, and the statement that gives it. $1 is whether migrations are
-- pending. The catalogs are read directly: names in a schema without USAGE cannot be
-- resolved.
WITH needed (relation, privileges) AS (VALUES
    ('versions', '{SELECT}'::text[]), ('store', '{SELECT,INSERT}'), ('limits', '{SELECT,UPDATE}'),
    ('feeds', '{SELECT,INSERT,UPDATE}'), ('events', '{SELECT,INSERT,DELETE}'), ('keys', '{SELECT,INSERT,UPDATE,DELETE}'),
    ('queue', '{SELECT,DELETE}'), ('queue_places', '{SELECT,DELETE}'), ('refused', '{INSERT}')
), tables AS (
    SELECT c.oid, c.relname, c.relowner, n.privileges
    FROM needed n JOIN pg_class c ON c.relname = n.relation AND c.relnamespace = to_regnamespace('rejoin')
)
SELECT 'CREATE on the database ' || quote_ident(current_database()), format('CREATE SCHEMA rejoin AUTHORIZATION %I', current_user)
WHERE to_regnamespace('rejoin') IS NULL AND NOT has_database_privilege(current_database(), 'CREATE')
UNION ALL
SELECT p || ' on the schema rejoin', format('GRANT %s ON SCHEMA rejoin TO %I', p, current_user)
FROM pg_namespace n, unnest(CASE WHEN $1 THEN '{USAGE,CREATE}'::text[] ELSE '{USAGE}' END) p
WHERE n.nspname = 'rejoin' AND NOT has_schema_privilege(n.oid, p)
UNION ALL
SELECT p || ' on the table rejoin.' || t.relname, format('GRANT %s ON TABLE rejoin.%I TO %I', p, t.relname, current_user)
FROM tables t, unnest(t.privileges) p
WHERE NOT has_table_privilege(t.oid, p)
UNION ALL
SELECT 'EXECUTE on the function ' || f.oid::regprocedure, format('GRANT EXECUTE ON FUNCTION rejoin.%I TO %I', f.proname, current_user)
FROM pg_proc f
WHERE f.pronamespace = to_regnamespace('rejoin') AND f.proname = 'make_feeds' AND NOT has_function_privilege(f.oid, 'EXECUTE')
UNION ALL
SELECT 'ownership of the table rejoin.' || t.relname, format('ALTER TABLE rejoin.%I OWNER TO %I', t.relname, current_user)
FROM tables t
WHERE $1 AND NOT pg_has_role(t.relowner, 'USAGE')
