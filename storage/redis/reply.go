package redis

// entry is an entry of a stream.
type entry struct {
	at     position
	fields []any // strings, name and value by turns
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
		// The fields of an entry that was deleted in the meantime are nil.
		fields, _ := pair[1].([]any)
		entries[i] = entry{at, fields}
	}
	return entries, true
}

// parseStreams reads what XREAD returns, and passes on each stream's entries.
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
