-- Set in any case, so that a reload of the server's configuration cannot switch
-- it off under this session.
SELECT set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), false)
