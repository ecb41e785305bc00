package postgres

import (
	"context"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/rejoin/rejoin/feed"
)

// keyLocks is the number of advisory locks that the keys of batches without a
// feed share. A feed's keys need none, because the feed's row is locked. One lock
// for each key could be more than the server has room for.
const keyLocks = 1024

// lockPlan is what an append loads and locks.
type lockPlan struct {
	feeds   []string // sorted
	keyed   []int    // the batches that have keys
	locks   []int64  // the advisory locks, sorted
	names   []string // the feeds and advisory locks as feedLocks knows them, sorted
	mayWait bool     // no batch is NoWait
}

func planLocks(batches []feed.Batch) lockPlan {
	p := lockPlan{mayWait: true}
	seen, locks := make(map[string]bool), make(map[int64]bool)
	need := func(name string) {
		if !seen[name] {
			seen[name] = true
			p.feeds = append(p.feeds, name)
		}
	}
	for i, b := range batches {
		p.mayWait = p.mayWait && !b.NoWait
		for _, d := range b.Drafts {
			need(d.Feed)
		}
		if b.Feed != "" {
			need(b.Feed)
		}
		if b.Key == nil {
			continue
		}
		p.keyed = append(p.keyed, i)
		if b.Feed == "" {
			locks[keyLock(b.Key.Name)] = true
		}
	}
	slices.Sort(p.feeds)
	p.locks = slices.Sorted(maps.Keys(locks))
	p.names = p.feeds
	if len(p.locks) > 0 {
		p.names = slices.Clone(p.feeds)
		for _, lock := range p.locks {
			p.names = append(p.names, "key "+strconv.FormatInt(lock, 10)) // no feed's name has a space
		}
		slices.Sort(p.names)
	}
	return p
}

// keyLock returns the advisory lock of a key that belongs to no feed.
func keyLock(name string) int64 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name)) // never fails
	return migrationLock<<16 + int64(h.Sum32()%keyLocks)
}

// feedLocks let the appends of this process take turns at each feed, in the order
// of arrival. An append locks all of its feeds, in the order of their names.
type feedLocks struct {
	mu    sync.Mutex
	feeds map[string]*feedLock
}

type feedLock struct {
	users int           // those that hold the lock or wait for it
	held  chan struct{} // has an entry while the lock is held
}

func newFeedLocks() *feedLocks { return &feedLocks{feeds: make(map[string]*feedLock)} }

// lock waits until it holds the feeds, whose names are sorted. It fails when ctx
// ends or done is closed.
func (l *feedLocks) lock(ctx context.Context, done <-chan struct{}, names []string) (unlock func(), err error) {
	for i, name := range names {
		held := l.register(name)
		select {
		case held <- struct{}{}: // a free lock is taken even if ctx has ended
			continue
		default:
		}
		select {
		case held <- struct{}{}:
			continue
		case <-ctx.Done():
			err = unavailable(context.Cause(ctx))
		case <-done:
			err = feed.ErrStopped
		}
		l.unregister(names[i:i+1], false)
		l.unregister(names[:i], true)
		return nil, err
	}
	return func() { l.unregister(names, true) }, nil
}

func (l *feedLocks) register(name string) chan<- struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.feeds[name]
	if one == nil {
		one = &feedLock{held: make(chan struct{}, 1)}
		l.feeds[name] = one
	}
	one.users++
	return one.held
}

func (l *feedLocks) unregister(names []string, holding bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		one := l.feeds[name]
		if holding {
			<-one.held
		}
		if one.users--; one.users == 0 {
			delete(l.feeds, name)
		}
	}
}
