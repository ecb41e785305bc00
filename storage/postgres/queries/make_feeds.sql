SELECT rejoin.make_feeds($1)
