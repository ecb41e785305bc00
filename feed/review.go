package feed

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// epoch changes whenever another store may have taken the place of the hub's.
func (h *Hub) epoch() uint64 {
	epoch := h.failures.Load()
	if c, ok := h.store.Store.(Comparer); ok {
		epoch += c.Epoch()
	}
	return epoch
}

// compareLogs compares logs with the store, reviews those that need it, and returns
// the bounds of their feeds.
func (h *Hub) compareLogs(ctx context.Context, logs []*log) ([]Bounds, error) {
	before := make([]logState, len(logs))
	for i, l := range logs {
		// The log comes first, then the store: whatever the log holds now was
		// committed, so the store cannot be behind it.
		before[i] = l.state()
	}
	ends, comparer, err := h.ends(ctx, logs, before)
	if err != nil {
		return nil, err
	}
	epoch := h.epoch()
	bounds := make([]Bounds, len(logs))
	var toReview []*log
	for i, l := range logs {
		bounds[i] = ends[i].Bounds
		if before[i].needsReview(ends[i], epoch, comparer) {
			toReview = append(toReview, l)
			continue
		}
		h.apply(l, l.setBounds(ends[i].Bounds, before[i].confirmed))
		l.setVerified(before[i], ends[i], epoch)
	}
	slices.SortFunc(toReview, func(a, b *log) int { return strings.Compare(a.feed, b.feed) })
	for _, l := range toReview {
		if err := h.review(ctx, l); err != nil {
			return nil, err
		}
	}
	return bounds, nil
}

// ends asks the store where the logs' feeds end.
func (h *Hub) ends(ctx context.Context, logs []*log, before []logState) (ends []End, comparer bool, err error) {
	if c, ok := h.store.Store.(Comparer); ok {
		places := make([]Place, len(logs))
		for i, l := range logs {
			places[i] = Place{l.feed, before[i].verified.id}
		}
		ends, err = h.store.ends(ctx, c, places)
		return ends, true, err
	}
	feeds := make([]string, len(logs))
	for i, l := range logs {
		feeds[i] = l.feed
	}
	all, err := h.store.Bounds(ctx, feeds)
	for _, b := range all {
		ends = append(ends, End{Bounds: b})
	}
	return ends, false, err
}

// suspect makes the hub review a log soon.
func (h *Hub) suspect(l *log) {
	l.mu.Lock()
	l.suspect = true
	l.mu.Unlock()
	h.recheck(l.feed)
}

// review compares the events that the log holds with those of the store. If they
// differ, the log starts again with what is stored now.
func (h *Hub) review(ctx context.Context, l *log) error {
	st, held := l.holding()
	epoch := h.epoch()
	found, err := h.findDivergence(ctx, l.feed, st, held)
	if err != nil {
		return fmt.Errorf("compare %s with the store: %w", l.feed, err)
	}
	if epoch != h.epoch() {
		h.recheckAll() // another store may have answered meanwhile
		return nil
	}
	change, rolledBack := l.reviewed(st, found, epoch)
	if rolledBack {
		h.forget(l.feed)
		h.replacedNotice.log(h.logger, l.feed, st, found)
		h.recheckAll() // other feeds may have been rolled back, too
	}
	h.apply(l, change)
	return nil
}

// holding returns the state of the log, and all events that it holds.
func (l *log) holding() (logState, []Event) {
	st := l.state()
	l.mu.Lock()
	defer l.mu.Unlock()
	var held []Event
	for _, s := range l.segments {
		held = append(held, s.events...)
	}
	if l.generation != st.generation {
		return st, nil // reviewed will notice
	}
	st.base, st.tail, st.newest = l.base, l.tail, l.newest
	return st, held
}

// divergence is where a log's history and the store's part.
type divergence struct {
	bounds Bounds // of the store
	agreed ID     // the newest event that both are known to have
	differ bool   // there is an id for which they have different events
}

// findDivergence reads the store until it differs from what a log held.
func (h *Hub) findDivergence(ctx context.Context, feed string, st logState, held []Event) (d divergence, err error) {
	read := func(after ID, limit Limit) (Page, error) {
		page, err := h.store.Read(ctx, feed, after, limit)
		if err == nil {
			err = checkPage(feed, after, page)
		}
		d.bounds = page.Bounds
		return page, err
	}
	one := Limit{Events: 1, Bytes: 1}
	for _, s := range []stamp{st.verified, st.lastDropped, st.newest} {
		if s.id <= d.agreed || s.id > st.tail || s.id > st.base && len(held) > 0 {
			continue // the event is among those held, or there is none
		}
		page, err := read(s.id-1, one)
		if err != nil {
			return d, err
		}
		if len(page.Events) == 0 || page.Events[0].ID != s.id {
			continue
		}
		if stampOf(&page.Events[0]) != s {
			d.differ = true
			return d, nil
		}
		d.agreed = s.id
	}
	after := st.base
	for {
		page, err := read(after, pageLimit)
		if err != nil {
			return d, err
		}
		for i := range page.Events {
			e := &page.Events[i]
			if e.ID > st.tail {
				return d, nil
			}
			n := int(e.ID - st.base - 1)
			if n >= len(held) || !sameEvent(&held[n], e) {
				d.differ = n < len(held)
				return d, nil
			}
			d.agreed, after = e.ID, e.ID
		}
		if len(page.Events) == 0 || after >= st.tail {
			return d, nil
		}
	}
}

// reviewed takes what a review of the log in the state st has found. rolledBack
// reports that the store is an older one.
func (l *log) reviewed(st logState, d divergence, epoch uint64) (change logChange, rolledBack bool) {
	l.mu.Lock()
	if !l.loaded || l.generation != st.generation {
		l.mu.Unlock()
		return logChange{}, false
	}
	frozen := l.frozen
	l.suspect, l.frozen = false, false
	if !d.differ && !st.rolledBack(d.bounds) {
		if st.newest.id == st.tail {
			l.verified, l.epoch = st.newest, epoch
		}
		l.mu.Unlock()
		change = l.setBounds(d.bounds, confirmed{})
		change.grew = change.grew || frozen
		return change, false
	}
	defer l.mu.Unlock()
	switch {
	case d.differ:
		l.rollBack(d.agreed, d.bounds.Last)
		rolledBack = true
	case d.bounds.Last < st.tail:
		// There is no sign that it has grown since.
		l.rollBack(d.bounds.Last, d.bounds.Last)
		rolledBack = true
	}
	l.known, l.closed = 0, false
	l.generation++
	l.restart(d.bounds)
	l.close(d.bounds)
	l.epoch = epoch
	return logChange{grew: true}, rolledBack
}

// replacedNotice logs that an older store has taken the place of the hub's: once,
// however many feeds show it.
type replacedNotice struct {
	mu    sync.Mutex
	quiet time.Time // no line before
}

func (n *replacedNotice) log(logger *slog.Logger, feed string, st logState, d divergence) {
	n.mu.Lock()
	now := time.Now()
	logged := now.Before(n.quiet)
	n.quiet = now.Add(time.Minute)
	n.mu.Unlock()
	if logged {
		return
	}
	logger.Error("the store has been replaced by an older one: events that were sent are not in it, and it gives their ids to other events. "+
		"Subscribers that are past it get a gap (ahead). Look for a restored backup, or a standby that was promoted without the last commits",
		"feed", feed, "held", st.tail, "agrees", d.agreed, "last", d.bounds.Last)
}
