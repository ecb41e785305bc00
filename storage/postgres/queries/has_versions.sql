SELECT to_regclass('rejoin.versions') IS NOT NULL
