package feed

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"
)

// A hub compares its logs with the store: all of them about every HubOptions.Verify,
// and those of the dirty set at once.

const (
	verifyBatch = 1000                  // feeds in one call of Store.Bounds
	verifyMost  = 20_000                // feeds in one regular round; the others follow in the next
	verifyPause = 50 * time.Millisecond // between two rounds, at the least
)

// dirtySet holds the logs that have to be compared with the store now. However often
// a log is added, one comparison serves all additions before it.
type dirtySet struct {
	mu   sync.Mutex
	all  bool
	logs map[*log]struct{}
	more chan struct{} // gets a token when something is added
}

func newDirtySet() dirtySet { return dirtySet{more: make(chan struct{}, 1)} }

func (d *dirtySet) add(l *log) {
	d.mu.Lock()
	if d.logs == nil {
		d.logs = make(map[*log]struct{})
	}
	d.logs[l] = struct{}{}
	d.mu.Unlock()
	poke(d.more)
}

func (d *dirtySet) addAll() {
	d.mu.Lock()
	d.all = true
	d.mu.Unlock()
	poke(d.more)
}

// take empties the set.
func (d *dirtySet) take() (logs []*log, all bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	logs, all = slices.Collect(maps.Keys(d.logs)), d.all
	d.logs, d.all = nil, false
	return logs, all
}

// recheck compares the feed's log with the store soon, if this node has one.
func (h *Hub) recheck(feed string) {
	h.forget(feed)
	if l := h.lookup(feed); l != nil && !l.reserved {
		h.dirty.add(l)
	}
}

// recheckAll compares every log with the store soon: anything may have happened to
// any feed.
func (h *Hub) recheckAll() { h.dirty.addAll() }

// verifyLoop compares logs with the store for as long as the hub lives: dirty ones at
// once, and all of them in regular rounds. With very many open feeds, each round does a
// part of them. When all logs are dirty, the next round comes now, and does them all.
func (h *Hub) verifyLoop() {
	timer := time.NewTimer(h.verify)
	defer timer.Stop()
	var due []*log      // of the logs that a round began with, those that are left
	var ended time.Time // the last round
	whole := false      // the next round does all logs
	var began time.Time // when the first of these rounds began
	failed := false     // one of these rounds
	for {
		round := false
		select {
		case <-h.dirty.more:
		case <-timer.C:
			round = true
		case <-h.ctx.Done():
			return
		}
		logs, all := h.dirty.take()
		if h.verifyLogs(logs) != nil {
			whole = true
		}
		if all {
			// However often all logs become dirty, rounds keep this distance.
			whole = true
			timer.Reset(time.Until(ended.Add(verifyPause)))
		}
		if !round {
			continue
		}
		if whole || len(due) == 0 {
			began, failed = time.Now(), false
			due = h.dropIdleLogs(began)
		}
		n := len(due)
		if !whole {
			n = min(n, verifyMost)
		}
		failed = h.verifyLoaded(due[:n]) != nil || failed
		due, whole, ended = due[n:], false, time.Now()
		if len(due) == 0 && !failed {
			h.compared.Store(began.UnixMilli())
		}
		timer.Reset(max(h.verify, verifyPause))
	}
}

// dropIdleLogs drops the logs that have had no user for a while, empties quiet ones,
// and returns all that are left.
func (h *Hub) dropIdleLogs(now time.Time) []*log {
	h.mu.Lock()
	defer h.mu.Unlock()
	logs := make([]*log, 0, len(h.logs))
	for name, l := range h.logs {
		if l.users == 0 && now.Sub(l.idle) >= linger {
			delete(h.logs, name)
			l.empty()
			continue
		}
		l.dropIfQuiet(now.Add(-linger))
		logs = append(logs, l)
	}
	return logs
}

// verifyLoaded compares with the store those of the logs that are loaded. When the
// store does not answer, the next round is soon enough.
func (h *Hub) verifyLoaded(logs []*log) error {
	return h.verifyLogs(slices.DeleteFunc(slices.Clone(logs), func(l *log) bool {
		_, loaded := l.confirmed()
		return !loaded || l.reserved
	}))
}

// verifyLogs compares logs with the store, in batches, until the store fails.
func (h *Hub) verifyLogs(logs []*log) error {
	for batch := range slices.Chunk(logs, verifyBatch) {
		if err := h.compare(h.ctx, batch); err != nil {
			return err
		}
	}
	return nil
}

// compare compares logs with the store in one call, and notes how that went.
func (h *Hub) compare(ctx context.Context, logs []*log) error {
	if len(logs) == 0 {
		return nil
	}
	_, err := h.compareLogs(ctx, logs)
	h.noteComparing(ctx, err)
	return err
}
