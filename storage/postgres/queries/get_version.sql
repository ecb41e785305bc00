SELECT coalesce(max(version_id), 0) FROM rejoin.versions
