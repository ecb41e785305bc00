-- "Rjoi" in ASCII. It tells our files from other people's: see mark.
PRAGMA application_id = 1382707049
