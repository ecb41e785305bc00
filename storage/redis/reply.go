package redis

// entry is an entry of a stream.
type entry struct {
	at     position
	fields []any // strings: a name, its value, the next name
}

// parseEntries reads the entries of one stream, as XRANGE returns them.
func parseEntries(reply []any) ([]entry, bool) {
	entries := make([]entry, len(reply))
	for i, r := range reply {
		pair, _ := r.([]any)
		if len(pair) != 2 {
			return nil, false
		}
		id, _ := pair[0].(string)
		at, ok := parsePosition(id)
		if !ok {
			return nil, false
		}
		// If the entry was deleted meanwhile, its fields are nil.
		fields, _ := pair[1].([]any)
		entries[i] = entry{at, fields}
	}
	return entries, true
}

// parseStreams reads a reply of XREAD, and calls each with the entries of each stream.
func parseStreams(reply []any, each func(key string, entries []entry)) bool {
	for _, r := range reply {
		pair, _ := r.([]any)
		if len(pair) != 2 {
			return false
		}
		key, _ := pair[0].(string)
		list, _ := pair[1].([]any)
		entries, ok := parseEntries(list)
		if !ok {
			return false
		}
		each(key, entries)
	}
	return true
}
