SELECT EXISTS (
    SELECT FROM rejoin.keys
    WHERE feed = $1 AND key = $2 AND print = $3 AND time = $4 AND firsts = $5 AND times = $6
)
