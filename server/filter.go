package server

import (
	"fmt"
	"slices"
	"strings"

	"github.com/rejoin/rejoin/feed"
)

// filter names the event types that a subscriber wants to be shown, sorted and
// with commas between them; empty for all.
type filter string

// typesBytes is how long ?types= may be: each event is compared with all of them.
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
			return "", invalid("types has an empty type in it; events without a type are shown by the type message")
		}
		if err := feed.CheckType(t); err != nil {
			return "", fmt.Errorf("types: %w", err)
		}
	}
	slices.Sort(types)
	// A copy: what is kept must not hold on to the whole request.
	return filter(strings.Clone(strings.Join(slices.Compact(types), ","))), nil
}

// shows says whether the subscriber is to be shown the event.
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
