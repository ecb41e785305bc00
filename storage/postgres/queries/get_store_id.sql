SELECT id FROM rejoin.store
