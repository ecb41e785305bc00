SELECT id, swept, first FROM feeds INDEXED BY feeds_unswept WHERE swept < first LIMIT 1
