package feed_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// access is the world's store as one node sees it: every call is held up on its
// way there, and on its way back.
type access struct {
	world *world
	node  *node
}

var (
	_ feed.RetentionStore = access{}
	_ feed.Comparer       = access{}
)

func (a access) pass(ctx context.Context, at point, name string, after feed.ID) error {
	return a.world.gate.pass(ctx, call{node: a.node, at: at, feeds: name, after: after})
}

func (a access) ID() string { return a.world.store.ID() }

func (a access) Close() error { return nil }

// Append locks the feeds between giving out numbers and committing. It waits for feeds
// that others have locked, or refuses them as busy.
func (a access) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	w := a.world
	feeds, waits := feedsOf(batches)
	c := call{node: a.node, at: appendAsked, feeds: strings.Join(feeds, ",")}
	if err := w.gate.pass(ctx, c, waits...); err != nil {
		return nil, err
	}
	mine := &lock{node: a.node}
	results := make([]feed.Result, len(batches))
	free := make([]feed.Batch, 0, len(batches))
	for i, b := range batches {
		if w.locks.take(b, mine) {
			free = append(free, b)
		} else {
			results[i].Err = feed.ErrBusy
		}
	}
	c.at = appendNumbered
	err := w.gate.pass(ctx, c)
	if err != nil {
		w.locks.leave(mine)
		return nil, err
	}
	stored, err := w.store.Append(ctx, free)
	w.locks.leave(mine)
	if err != nil {
		return nil, err
	}
	c.at = appendCommitted
	if err := w.gate.pass(ctx, c); err != nil {
		return nil, err
	}
	for i := range results {
		if results[i].Err == nil {
			results[i], stored = stored[0], stored[1:]
		}
	}
	return results, nil
}

// feedsOf returns the feeds that batches are for, and those among them whose holders the
// batches wait for.
func feedsOf(batches []feed.Batch) (feeds, waits []string) {
	for _, b := range batches {
		feeds = append(feeds, b.Feed)
		if !b.NoWait {
			waits = append(waits, b.Feed)
		}
	}
	slices.Sort(feeds)
	return slices.Compact(feeds), waits
}

func (a access) Read(ctx context.Context, name string, after feed.ID, limit feed.Limit) (feed.Page, error) {
	if err := a.pass(ctx, readAsked, name, after); err != nil {
		return feed.Page{}, err
	}
	p, _ := a.world.store.Read(ctx, name, after, limit)
	return p, a.pass(ctx, readAnswered, name, after)
}

func (a access) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	sorted := feeds
	if len(feeds) > 1 {
		sorted = slices.Sorted(slices.Values(feeds))
	}
	what := strings.Join(sorted, ",")
	if err := a.pass(ctx, boundsAsked, what, 0); err != nil {
		return nil, err
	}
	all, _ := a.world.store.Bounds(ctx, feeds)
	return all, a.pass(ctx, boundsAnswered, what, 0)
}

func (a access) Ends(ctx context.Context, places []feed.Place) ([]feed.End, error) {
	feeds := make([]string, len(places))
	for i, p := range places {
		feeds[i] = p.Feed
	}
	what := strings.Join(slices.Sorted(slices.Values(feeds)), ",")
	if err := a.pass(ctx, boundsAsked, what, 0); err != nil {
		return nil, err
	}
	ends, _ := a.world.store.Ends(ctx, places)
	return ends, a.pass(ctx, boundsAnswered, what, 0)
}

func (a access) Epoch() uint64 { return a.world.store.Epoch() }

func (a access) Seek(ctx context.Context, name string, t time.Time) (feed.ID, error) {
	if err := a.pass(ctx, seekAsked, name, 0); err != nil {
		return 0, err
	}
	c, _ := a.world.store.Seek(ctx, name, t)
	return c, a.pass(ctx, seekAnswered, name, 0)
}

func (a access) List(ctx context.Context, prefix, after string, limit int) (feed.FeedList, error) {
	if err := a.pass(ctx, listAsked, prefix, 0); err != nil {
		return feed.FeedList{}, err
	}
	return a.world.store.List(ctx, prefix, after, limit)
}

// byHand marks the context of a trim that no retention has asked for.
type byHand struct{}

func (a access) Trim(ctx context.Context, name string, before feed.ID) error {
	if err := a.pass(ctx, trimAsked, name, before); err != nil {
		return err
	}
	if ctx.Value(byHand{}) == nil {
		a.world.judgeTrim(name, before)
	}
	a.world.checker.Trimming(name, before)
	_ = a.world.store.Trim(ctx, name, before)
	return a.pass(ctx, trimDone, name, before)
}

func (a access) Sweep(ctx context.Context, limit int, window time.Duration) (bool, error) {
	if err := a.pass(ctx, sweepAsked, "", 0); err != nil {
		return false, err
	}
	return a.world.store.Sweep(ctx, limit, window)
}

func (a access) RunExclusive(ctx context.Context, fn func(context.Context) error) (bool, error) {
	mine := &lock{node: a.node}
	if !a.world.locks.take(feed.Batch{Feed: "retention"}, mine) {
		return false, nil
	}
	defer a.world.locks.leave(mine)
	return true, fn(ctx)
}

// judgeTrim holds a trim of a retention to its rule.
func (w *world) judgeTrim(name string, before feed.ID) {
	p := w.store.History(name)
	rule := w.plan.retain
	for _, e := range p.Events {
		tooMany := rule.Events > 0 && e.ID+feed.ID(rule.Events) <= p.Last
		tooOld := rule.Age > 0 && time.Since(e.Time) > rule.Age
		if e.ID < before && !tooMany && !tooOld {
			w.gate.fault(fmt.Errorf("retention trims %s before %d of %d, and with it event %d, which is to be kept", name, before, p.Last, e.ID))
			return
		}
	}
}

// lock is a transaction that holds feeds: a node's append, or a foreign one.
type lock struct {
	node   *node        // nil for a foreign one
	drafts []feed.Draft // a foreign one appends these if it commits
}

// locks records which transaction holds which feed.
type locks struct {
	mu   sync.Mutex
	open bool // no feed is held any more
	held map[string]*lock
}

// take locks the batch's feed, and reports whether it could.
func (l *locks) take(b feed.Batch, by *lock) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open {
		return true
	}
	if held := l.held[b.Feed]; held != nil && held != by {
		return false
	}
	l.held[b.Feed] = by
	return true
}

// leave unlocks the feeds that by holds.
func (l *locks) leave(by *lock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, held := range l.held {
		if held == by {
			delete(l.held, name)
		}
	}
}

// free reports whether none of the feeds is held.
func (l *locks) free(feeds []string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !slices.ContainsFunc(feeds, func(name string) bool { return l.held[name] != nil })
}

// holder returns the transaction that holds the feed, or nil.
func (l *locks) holder(name string) *lock {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[name]
}

// haunt makes a crashed node's append hold the feed until the store has noticed.
func (l *locks) haunt(name string, n *node) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if held := l.held[name]; held != nil && held.node == n {
		l.held[name] = &lock{}
	}
}

// release ends all locks, and takes no more.
func (l *locks) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = true
	clear(l.held)
}
