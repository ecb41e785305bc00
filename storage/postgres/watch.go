package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rejoin/rejoin/feed"
)

const (
	newsFeeds  = 500     // in one query for news
	newsEvents = 100     // of one feed in it; the hub reads the others page by page
	newsBytes  = 4 << 20 // of data in it
	watchFeeds = 50_000  // that wait for a query; with more, everything is compared

	// From one query for news to the next. The first comes at once.
	newsEvery = time.Millisecond
)

// Watch implements [feed.WatchedStore]. It reports what applications append, what was
// queued, and with a [Bus] what other nodes append, as the database notifies this
// node of it. It also numbers what is queued.
func (s *Store) Watch(ctx context.Context, r feed.WatchReceiver) error {
	end, err := s.begin()
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &watch{store: s, receiver: r, grown: make(growth), more: make(chan struct{}, 1), queued: make(chan struct{}, 1)}
	defer s.listener.join(w)()
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { s.drainLoop(ctx, w.queued) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.done:
			cancel()
			return fmt.Errorf("watch: %w", feed.ErrStopped)
		case <-w.more:
		}
		w.report(ctx)
		select {
		case <-time.After(newsEvery):
		case <-ctx.Done():
		}
	}
}

// watch is one call of Watch.
type watch struct {
	store    *Store
	receiver feed.WatchReceiver
	queued   chan struct{} // has an entry when something may be in the queue

	mu    sync.Mutex
	grown growth // to be read; MaxID for an unknown last id
	lost  bool   // notifications may have been lost
	more  chan struct{}
}

func (w *watch) hear(kind string, words []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case kind == kindGrew:
		for name, last := range parseGrowth(words[1:]) {
			w.grown[name] = max(w.grown[name], last)
		}
	case kind == kindAppend && len(words) == 1:
		w.grown[words[0]] = feed.MaxID // the payload has no id
	case kind == kindLook:
		w.lost = true
	case kind == kindQueue:
		poke(w.queued)
		return
	default:
		return
	}
	if len(w.grown) > watchFeeds {
		clear(w.grown)
		w.lost = true
	}
	poke(w.more)
}

func (w *watch) missed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = true
	poke(w.more)
	poke(w.queued)
}

func (w *watch) take() (grown growth, lost bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	grown, lost = w.grown, w.lost
	w.grown, w.lost = make(growth), false
	return grown, lost
}

// report reports all that was heard.
func (w *watch) report(ctx context.Context) {
	grown, lost := w.take()
	if lost {
		w.receiver.Missed() // which reads these feeds, too
		return
	}
	names, afters := make([]string, 0, newsFeeds), make([]int64, 0, newsFeeds)
	read := func() {
		if len(names) > 0 && w.read(ctx, names, afters) != nil && ctx.Err() == nil {
			lost = true
		}
		names, afters = names[:0], afters[:0]
	}
	for name, last := range grown {
		after, open := w.receiver.Cursor(name)
		switch {
		case open && after >= last:
			continue
		case !open && last < feed.MaxID:
			w.receiver.Grew(name, last) // a subscriber may be coming at this moment
			continue
		case !open:
			w.receiver.Changed(name)
			continue
		}
		if names, afters = append(names, name), append(afters, int64(after)); len(names) == newsFeeds {
			read()
		}
	}
	if read(); lost {
		w.receiver.Missed()
	}
}

// read reads the news of feeds in one query and passes them on.
func (w *watch) read(ctx context.Context, names []string, afters []int64) error {
	var events []feed.Event
	var ends []feedEnd
	epoch := w.store.Epoch()
	err := w.store.read(ctx, w.store.news, func(rows pgx.Rows) error {
		events, ends = events[:0], ends[:0]
		for rows.Next() {
			raw := rows.RawValues()
			place := int(int8of(raw[0])) - 1
			if len(ends) == 0 || ends[len(ends)-1].place != place {
				ends = append(ends, feedEnd{place, feed.ID(int8of(raw[1])), feed.ID(afters[place]), raw[2][0] != 0})
			}
			if raw[3] == nil {
				continue
			}
			e := eventOf(names[place], raw[3:])
			ends[len(ends)-1].read = e.ID
			events = append(events, e)
		}
		return nil
	}, query("news"), names, afters, newsEvents, newsBytes)
	switch {
	case err != nil:
		return err
	case epoch != w.store.Epoch():
		return feed.ErrUnavailable // another server may have answered
	}
	if len(events) > 0 {
		w.receiver.Receive(events)
	}
	seen := 0
	for _, end := range ends {
		for ; seen < end.place; seen++ {
			w.receiver.Grew(names[seen], feed.ID(afters[seen])+1) // the hub finds out
		}
		seen++
		if end.read < end.last {
			w.receiver.Grew(names[end.place], end.last)
		}
		if end.closed {
			w.receiver.Changed(names[end.place])
		}
	}
	for ; seen < len(names); seen++ {
		w.receiver.Grew(names[seen], feed.ID(afters[seen])+1)
	}
	return nil
}

// feedEnd is how far a query for news has read a feed.
type feedEnd struct {
	place      int
	last, read feed.ID
	closed     bool
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
