package feed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// reader is a client that is cut off and comes back, to one feed or to a
// group of them.
type reader struct {
	name       string
	group      bool
	dispatched bool // a group is read by way of a dispatcher
	parts      []*part
	opened     atomic.Bool // it was connected before, so it has cursors
	conn       *conn
}

// part is one of the feeds that a reader follows.
type part struct {
	feed     string
	follower *feedtest.Follower
	ahead    atomic.Pointer[feed.Gap] // the last gap with that reason
}

// addReader adds a reader to the world. It is not connected yet.
func (w *world) addReader(name string) {
	r := &reader{name: name, group: len(w.feeds) > 1 && w.chance(w.plan.groups)}
	feeds := []string{w.anyFeed()}
	if r.group {
		feeds, r.dispatched = w.feeds, w.chance(60)
	}
	for _, name := range feeds {
		r.parts = append(r.parts, &part{feed: name, follower: w.checker.Follow(r.name, name)})
	}
	w.readers = append(w.readers, r)
}

// follows returns the reader's part of the feed, or nil.
func (r *reader) follows(name string) *part {
	for _, p := range r.parts {
		if p.feed == name {
			return p
		}
	}
	return nil
}

// feeds returns the feeds that the reader follows.
func (r *reader) feeds() (feeds []string) {
	for _, p := range r.parts {
		feeds = append(feeds, p.feed)
	}
	return feeds
}

// done reports whether the reader has reached the end of each of its feeds.
func (r *reader) done() bool {
	for _, p := range r.parts {
		if !p.follower.Closed() {
			return false
		}
	}
	return true
}

// conn is one connection of a reader: one subscription, or a group of them.
type conn struct {
	world  *world
	reader *reader
	node   *node
	cancel context.CancelFunc
	permit chan struct{}  // lets a stalled connection read once
	tick   chan time.Time // ends the Next in progress
	want   []byte

	mu      sync.Mutex
	opened  bool
	ended   bool
	err     error
	stalled bool
	seen    map[string]int // the newest ephemeral event of each node
}

// start is where a part of a connection starts, and the first and the last cursor
// that are right for it when the subscription is open.
type start struct {
	from  feed.From
	lower feed.ID
	upper func() feed.ID // or nil
}

func (s start) String() string {
	if c, ok := s.from.Cursor(); ok {
		return "after " + c.String()
	}
	return fmt.Sprint(s.from)
}

// connect opens a connection for r, with a start for each part.
func (w *world) connect(r *reader, n *node, starts []start) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &conn{world: w, reader: r, node: n, cancel: cancel, permit: make(chan struct{}), tick: make(chan time.Time)}
	r.conn = c
	for _, p := range r.parts {
		if !r.opened.Load() {
			p.follower.Resume(0) // like a reader that has never come before
		}
		p.follower.Gone(n.trimmed(p.feed))
	}
	go func() {
		defer cancel()
		err := c.follow(ctx, starts)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ended, c.err = true, err
	}()
}

// nextFunc is Next of a [feed.BlockingSubscriber], or of a Subscription, whose index
// is 0.
type nextFunc func(ctx context.Context, tick <-chan time.Time) (int, feed.Delivery, error)

// standing has the cursor of a subscription.
type standing interface{ Cursor() feed.ID }

// subscription is an open subscription of a reader, to one feed or several.
type subscription struct {
	places []standing
	next   nextFunc
	close  func()
}

// subscribe opens the subscription of the connection.
func (c *conn) subscribe(ctx context.Context, starts []start) (*subscription, error) {
	if !c.reader.group {
		s, err := c.node.hub.Subscribe(ctx, c.reader.parts[0].feed, starts[0].from)
		if err != nil {
			return nil, err
		}
		next := func(ctx context.Context, tick <-chan time.Time) (int, feed.Delivery, error) {
			d, err := s.Next(ctx, tick)
			return 0, d, err
		}
		return &subscription{[]standing{s}, next, s.Close}, nil
	}
	all := make([]feed.SubscribeRequest, len(starts))
	for i, s := range starts {
		all[i] = feed.SubscribeRequest{Feed: c.reader.parts[i].feed, From: s.from}
	}
	if c.reader.dispatched {
		r := &dispatched{dispatcher: c.node.hub.NewDispatcher()}
		g, err := r.dispatcher.SubscribeAll(ctx, all, r)
		if err != nil {
			return nil, err
		}
		return &subscription{placesOf(g), r.next(g), g.Close}, nil
	}
	g, err := c.node.hub.SubscribeAll(ctx, all)
	if err != nil {
		return nil, err
	}
	return &subscription{placesOf(g.Subscriber), g.Next, g.Close}, nil
}

func placesOf(g *feed.Subscriber) (all []standing) {
	for i := range g.Size() {
		all = append(all, g.At(i))
	}
	return all
}

func (c *conn) follow(ctx context.Context, starts []start) error {
	w := c.world
	sub, err := c.subscribe(ctx, starts)
	if err != nil {
		return err
	}
	defer sub.close()
	if c.node.dead.Load() {
		return errCrashed
	}
	for i, p := range c.reader.parts {
		p.follower.Opened(sub.places[i].Cursor())
		s, at := starts[i], sub.places[i].Cursor()
		if s.upper != nil && !w.plan.rollbacks && (at < s.lower || at > s.upper()) {
			w.gate.fault(fmt.Errorf("%s starts in %s at %d, want %d to %d", c.reader.name, p.feed, at, s.lower, s.upper()))
		}
	}
	c.reader.opened.Store(true)
	c.mu.Lock()
	c.opened = true
	c.mu.Unlock()
	next := sub.next
	if w.plan.next != nil {
		next = w.plan.next(next)
	}
	for {
		i, d, err := c.next(ctx, next)
		if c.node.dead.Load() {
			return errCrashed
		}
		if err != nil {
			return c.end(err)
		}
		if i >= 0 {
			c.see(c.reader.parts[i], sub.places[i], d)
		}
	}
}

// end notes why the connection ended.
func (c *conn) end(err error) error {
	if !errors.Is(err, feed.ErrClosed) {
		return err
	}
	if !c.reader.group {
		c.reader.parts[0].follower.SawClosed()
	}
	if !c.reader.done() {
		c.world.gate.fault(fmt.Errorf("%s: ended before all of its feeds", c.reader.name))
	}
	return err
}

// next reads once. A stalled connection waits for a permit first. If it then
// has to wait for an event, it is no longer stalled, and reads all there is
// when that comes: the Go scheduler decides what a single read would find in the
// middle of a step.
func (c *conn) next(ctx context.Context, next nextFunc) (int, feed.Delivery, error) {
	c.mu.Lock()
	stalled, permit := c.stalled, c.permit
	c.mu.Unlock()
	if stalled {
		select {
		case <-permit:
		case <-ctx.Done():
			return -1, feed.Delivery{}, ctx.Err()
		}
	}
	step := c.world.gate.now()
	i, d, err := next(ctx, c.tick)
	ticked := err == nil && d.Gap == nil && !d.Closed && len(d.Events()) == 0
	if ticked {
		return -1, d, nil
	}
	if c.world.gate.now() != step {
		c.mu.Lock()
		c.stalled = false
		c.mu.Unlock()
	}
	return i, d, err
}

// see shows a delivery to the checker.
func (c *conn) see(p *part, sub standing, d feed.Delivery) {
	w := c.world
	switch {
	case d.Ephemeral:
		c.hear(p, d)
	case d.Closed:
		p.follower.SawClosed()
	case d.Gap != nil:
		p.follower.SawGap(*d.Gap)
		if d.Gap.Reason == feed.Ahead {
			p.ahead.Store(d.Gap)
		}
	default:
		p.follower.Saw(d.Events()...)
	}
	if got := p.follower.Cursor(); got != sub.Cursor() {
		w.gate.fault(fmt.Errorf("%s: the subscription to %s is at %d, its deliveries at %d", c.reader.name, p.feed, sub.Cursor(), got))
	}
	c.want = c.want[:0]
	events := d.Events()
	for i := range events {
		c.want = short{}.Encode(c.want, &events[i])
	}
	if got := d.Encoded(short{}); !bytes.Equal(got, c.want) {
		w.gate.fault(fmt.Errorf("%s: got the bytes %q, want %q", c.reader.name, got, c.want))
	}
}

// short encodes events in a few bytes that tell them apart.
type short struct{}

func (short) Encode(dst []byte, e *feed.Event) []byte {
	dst = e.ID.Append(dst)
	dst = append(dst, ' ')
	dst = append(dst, e.Data[:min(len(e.Data), 16)]...)
	return append(dst, '\n')
}

func (c *conn) state() (opened, ended, stalled bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened, c.ended, c.stalled, c.err
}

// halt makes an open connection stop reading, or go on. Everything is at rest.
func (c *conn) halt(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stalled == on {
		return
	}
	c.stalled = on
	if !on {
		close(c.permit)
		c.permit = make(chan struct{})
		return
	}
	select {
	case c.tick <- time.Time{}:
	default:
	}
}

// expected reports whether a connection or a publish may end with err. The checker
// decides whether a feed may be closed.
func expected(err error) bool {
	for _, e := range []error{feed.ErrUnavailable, feed.ErrStopped, feed.ErrClosed, errCrashed, context.Canceled} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func isUncertain(err error) bool { return errors.Is(err, feed.ErrUncertain) }

// starts chooses where a new reader starts in each of its feeds.
func (w *world) starts(r *reader) []start {
	starts := make([]start, len(r.parts))
	for i, p := range r.parts {
		starts[i] = w.from(p.feed)
	}
	return starts
}

func (w *world) from(name string) start {
	b := w.bounds(name)
	newest := func() feed.ID { return w.bounds(name).Last }
	oldest := func() feed.ID { return w.bounds(name).First - 1 }
	switch w.rng.IntN(7) {
	case 0:
		return start{upper: newest}
	case 1:
		return start{from: feed.FromStart(), upper: oldest}
	case 2:
		n := uint64(w.rng.IntN(int(b.Last) + 3))
		return start{from: feed.FromNewest(n), upper: func() feed.ID {
			if now := newest(); feed.ID(n) < now {
				return max(now-feed.ID(n), oldest())
			}
			return oldest()
		}}
	case 3:
		t := w.began.Add(time.Duration(w.rng.Int64N(int64(time.Since(w.began)) + 1)))
		sought := func() feed.ID {
			c, _ := w.store.Seek(context.Background(), name, t)
			return c
		}
		return start{feed.FromTime(t), sought(), sought}
	case 4:
		return start{from: feed.FromCursor(feed.ID(w.rng.IntN(int(b.Last) + 1)))}
	case 5:
		// A later event must not be behind the cursor.
		last := b.Last
		return start{from: feed.FromMoment(time.Now()), upper: func() feed.ID { return max(last, oldest()) }}
	default:
		// A cursor that was never given, or not yet: from another store, say.
		return start{from: feed.FromCursor(b.Last + feed.ID(w.rng.IntN(3)*w.rng.IntN(200)))}
	}
}
