package redis

import "sync"

// echoes remembers the runs that this bus has told until it reads them back. The bus
// reads the runs of other nodes even if the receiver has their ids: after the store
// was replaced by an older one, these ids may belong to other events.
type echoes struct {
	mu   sync.Mutex
	runs map[echo]struct{}
}

type echo struct {
	name string
	run
}

// mostEchoes bounds the remembered runs. A forgotten run is read once more.
const mostEchoes = 1 << 14

func (e *echoes) told(name string, r run) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.runs == nil || len(e.runs) >= mostEchoes {
		e.runs = make(map[echo]struct{})
	}
	e.runs[echo{name, r}] = struct{}{}
}

// heard reports whether this bus told the run.
func (e *echoes) heard(name string, r run) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, own := e.runs[echo{name, r}]
	delete(e.runs, echo{name, r})
	return own
}
