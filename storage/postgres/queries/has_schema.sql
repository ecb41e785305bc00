SELECT to_regnamespace('rejoin') IS NOT NULL
