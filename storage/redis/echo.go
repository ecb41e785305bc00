package redis

import "sync"

// echoes knows what this bus has told itself, until it hears that back. What it
// hears of others it reads, even of ids that the receiver has: under these a
// store that was replaced by an older one may have given out other events.
type echoes struct {
	mu   sync.Mutex
	runs map[echo]struct{}
}

type echo struct {
	name string
	run
}

// mostEchoes bounds what is remembered. What is forgotten is read once more.
const mostEchoes = 1 << 14

func (e *echoes) told(name string, r run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.runs == nil || len(e.runs) >= mostEchoes {
		e.runs = make(map[echo]struct{})
	}
	e.runs[echo{name, r}] = struct{}{}
}

// heard says whether the run is one that was told here.
func (e *echoes) heard(name string, r run) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, own := e.runs[echo{name, r}]
	delete(e.runs, echo{name, r})
	return own
}
