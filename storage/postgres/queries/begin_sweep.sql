-- What a crash undoes of a sweep is swept again.
SELECT set_config('lock_timeout', $1, true), set_config('synchronous_commit', 'off', true)
