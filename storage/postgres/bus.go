package postgres

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/rejoin/rejoin/feed"
)

// Bus is a [feed.Bus] on the notifications of a store's database. It carries no events:
// it tells other nodes which feeds grew, and their stores read what is new, all at once
// (see [Store] Watch).
type Bus struct {
	store   *Store
	signals atomic.Uint64 // sent
	closed  atomic.Bool
}

var (
	_ feed.Bus      = (*Bus)(nil)
	_ feed.Signaler = (*Bus)(nil)
)

// OpenBus makes the store's appends notify other nodes, and returns the bus for its
// node. If url is not empty, it is where the listener connects: the database itself,
// where the URL of the store leads to a pooler.
//
// Call it before the first Append and Watch. The error is like that of [Open].
func (s *Store) OpenBus(ctx context.Context, url string) (*Bus, error) {
	if url != "" {
		config, err := parse(url, s.o)
		if err != nil {
			return nil, fmt.Errorf("open bus: %w", err)
		}
		if err := s.checkListener(ctx, config.ConnConfig); err != nil {
			return nil, fmt.Errorf("open bus: %w", err)
		}
		s.listener.config = config.ConnConfig
	}
	s.notifier.on = true
	return &Bus{store: s}, nil
}

// String returns where the listener connects.
func (b *Bus) String() string {
	if c := b.store.listener.config; c != nil {
		return location(c)
	}
	return b.store.String()
}

// Tell notifies the other nodes of those events that no commit has announced.
func (b *Bus) Tell(ctx context.Context, events []feed.Event) error {
	if err := b.check(ctx); err != nil {
		return fmt.Errorf("tell: %w", err)
	}
	payload := b.store.notifier.forTold(events)
	if payload == "" {
		return nil
	}
	if err := b.notify(ctx, payload); err != nil {
		return fmt.Errorf("tell: %w", err)
	}
	return nil
}

// Tail implements [feed.Bus]. All that it could pass on comes by [Store] Watch.
func (b *Bus) Tail(ctx context.Context, _ feed.Receiver) error {
	<-ctx.Done()
	return nil
}

// Signal implements [feed.Signaler].
func (b *Bus) Signal(ctx context.Context, payload []byte) error {
	if err := b.check(ctx); err != nil {
		return fmt.Errorf("signal: %w", err)
	}
	if len(payload) > maxSignal {
		return fmt.Errorf("signal: %d bytes are more than %d", len(payload), maxSignal)
	}
	if err := b.notify(ctx, signalPieces(b.store.listener.node, b.signals.Add(1), payload)...); err != nil {
		return fmt.Errorf("signal: %w", err)
	}
	return nil
}

func (b *Bus) check(ctx context.Context) error {
	if b.closed.Load() {
		return feed.ErrStopped
	}
	return ctx.Err()
}

// notify sends payloads in one transaction.
func (b *Bus) notify(ctx context.Context, payloads ...string) error {
	s := b.store
	end, err := s.begin()
	if err != nil {
		return err
	}
	defer end()
	return s.once(ctx, s.news, func(c *pgxpool.Conn) error {
		ctx, cancel := lenient(ctx, s.o.StatementTimeout+transit)
		defer cancel()
		if _, err := c.Exec(ctx, query("notify_all"), channel, payloads); err != nil {
			return unavailable(err)
		}
		return nil
	})
}

// Signals implements [feed.Signaler].
func (b *Bus) Signals(ctx context.Context, receive func(payload []byte)) error {
	end, err := b.store.begin()
	if err != nil {
		return fmt.Errorf("signals: %w", err)
	}
	defer end()
	in := &signalInbox{filled: make(chan struct{}, 1)}
	defer b.store.listener.join(in)()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.store.done:
			return fmt.Errorf("signals: %w", feed.ErrStopped)
		case <-in.filled:
		}
		for _, signal := range in.take() {
			if ctx.Err() == nil {
				receive(signal)
			}
		}
	}
}

// Ping reports whether this node can hear the others.
func (b *Bus) Ping(context.Context) error {
	if err := b.store.listener.state(); err != nil {
		return fmt.Errorf("ping postgres: %w", err)
	}
	return nil
}

// Close makes Tell and Signal fail. Tail and Signals must have returned.
func (b *Bus) Close() error {
	b.closed.Store(true)
	return nil
}

// The bounds of a signalInbox, which drops new signals when it is full.
const (
	inboxSignals = 4096
	inboxBytes   = 4 << 20
)

// signalInbox holds the signals that a receiver has yet to get.
type signalInbox struct {
	filled chan struct{} // has an entry while signals wait

	mu       sync.Mutex
	assembly assembly
	signals  [][]byte
	bytes    int
}

func (in *signalInbox) hear(kind string, words []string) {
	if kind != kindSignal {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	signal, ok := in.assembly.add(words)
	if ok && len(in.signals) < inboxSignals && in.bytes+len(signal) <= inboxBytes {
		in.signals, in.bytes = append(in.signals, signal), in.bytes+len(signal)
		poke(in.filled)
	}
}

func (in *signalInbox) missed() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.assembly = assembly{} // the rest of it is lost
}

func (in *signalInbox) take() [][]byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	signals := in.signals
	in.signals, in.bytes = nil, 0
	return signals
}

// announceEvery is the least time between two commits of a node that notify. A commit
// with a notification waits for all others with one, on the whole server; so what a
// busy node commits in between is told afterwards, all at once.
const announceEvery = 5 * time.Millisecond

// notifier decides which commits of this node notify the others.
type notifier struct {
	on   bool
	node string

	mu        sync.Mutex
	last      time.Time // when a commit last notified
	announced growth    // by commits, and not yet seen by forTold
}

// forCommit returns the payload of a commit that makes these changes, or "" for none.
func (n *notifier) forCommit(changes []feed.FeedChange, events int) string {
	if !n.on || events == 0 {
		return ""
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if now.Sub(n.last) < announceEvery {
		return ""
	}
	n.last = now
	return growthOf(changes).payload(n.node)
}

// committed notes that a commit with these changes has notified.
func (n *notifier) committed(changes []feed.FeedChange) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.announced == nil || len(n.announced) > watchFeeds {
		n.announced = make(growth)
	}
	for name, last := range growthOf(changes) {
		n.announced[name] = max(n.announced[name], last)
	}
}

// forTold returns the payload for events that have been committed, or "" if commits have
// announced all of them.
func (n *notifier) forTold(events []feed.Event) string {
	told := make(growth)
	for i := range events {
		told[events[i].Feed] = max(told[events[i].Feed], events[i].ID)
	}
	n.mu.Lock()
	for name, last := range told {
		if announced, ok := n.announced[name]; ok && announced >= last {
			delete(told, name)
			if announced == last {
				delete(n.announced, name)
			}
		}
	}
	n.mu.Unlock()
	if len(told) == 0 {
		return ""
	}
	return told.payload(n.node)
}

func growthOf(changes []feed.FeedChange) growth {
	g := make(growth, len(changes))
	for _, c := range changes {
		g[c.Name] = c.Row.Last
	}
	return g
}
