package feed

import "strings"

const TellEvery = tellEvery

// Logs returns the names of the feeds that the hub has a log of, and how many
// bytes the logs hold.
func (h *Hub) Logs() (names string, bytes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []string
	for name, l := range h.logs {
		l.mu.Lock()
		all = append(all, name)
		bytes += l.ephemera.bytes
		for _, s := range l.segments {
			bytes += s.memory()
		}
		l.mu.Unlock()
	}
	return strings.Join(all, " "), bytes
}

// Lock takes the outage's lock until unlock is called.
func (o *Outage) Lock() (unlock func()) {
	o.mu.Lock()
	return o.mu.Unlock
}

// Faults returns how many faults of single feeds the hub keeps.
func (h *Hub) Faults() int {
	h.faults.mu.Lock()
	defer h.faults.mu.Unlock()
	return len(h.faults.entries)
}
