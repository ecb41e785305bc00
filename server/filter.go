package server

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rejoin/rejoin/feed"
)

// filter holds the event types that a subscriber wants, sorted, with commas between
// them; empty means all.
type filter string

// typesBytes limits ?types=, because each event is compared with all of its types.
const typesBytes = 4096

// readFilter reads ?types=. "message" is the type of events that have none.
func readFilter(value string) (filter, error) {
	if value == "" {
		return "", nil
	}
	if len(value) > typesBytes {
		return "", invalid("types has %d bytes, the limit is %d", len(value), typesBytes)
	}
	types := strings.Split(value, ",")
	for _, t := range types {
		if t == "" {
			return "", invalid("types contains an empty type; the type of events without one is message")
		}
		if err := feed.CheckType(t); err != nil {
			return "", fmt.Errorf("types: %w", err)
		}
	}
	slices.Sort(types)
	// A copy, so that the stream does not keep the whole request in memory.
	return filter(strings.Clone(strings.Join(slices.Compact(types), ","))), nil
}

// shows reports whether the subscriber wants the event.
func (f filter) shows(e *feed.Event) bool {
	if f == "" {
		return true
	}
	wanted := e.Type
	if wanted == "" {
		wanted = "message"
	}
	for rest := string(f); ; {
		i := strings.Index(rest, wanted)
		if i < 0 {
			return false
		}
		end := i + len(wanted)
		if (i == 0 || rest[i-1] == ',') && (end == len(rest) || rest[end] == ',') {
			return true
		}
		rest = rest[end:]
	}
}
