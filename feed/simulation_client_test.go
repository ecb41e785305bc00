package feed_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// reader is a subscriber that is cut off and comes back.
type reader struct {
	name     string
	feed     string
	follower *feedtest.Follower
	opened   atomic.Bool // a first time, so that it has a cursor
	conn     *conn
}

// conn is one connection of a reader: one subscription.
type conn struct {
	world  *world
	reader *reader
	node   *node
	cancel context.CancelFunc
	permit chan struct{} // lets a stalled connection read once

	mu      sync.Mutex
	opened  bool
	ended   bool
	err     error
	stalled bool
	stall   context.CancelFunc // ends the Next in progress
}

// connect opens a connection for r, which starts at from if r is new.
func (w *world) connect(r *reader, n *node, from feed.From, upper func() feed.Cursor) {
	ctx, cancel := context.WithCancel(context.Background())
	c := &conn{world: w, reader: r, node: n, cancel: cancel, permit: make(chan struct{})}
	r.conn = c
	r.follower.Gone(n.trimmed(r.feed))
	go func() {
		defer cancel()
		err := c.follow(ctx, from, upper)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.ended, c.err = true, err
	}()
}

func (c *conn) follow(ctx context.Context, from feed.From, upper func() feed.Cursor) error {
	r, w := c.reader, c.world
	sub, err := c.node.hub.Subscribe(ctx, r.feed, from)
	if err != nil {
		return err
	}
	defer sub.Close()
	if c.node.dead.Load() {
		return errCrashed
	}
	r.follower.Opened(sub.Cursor())
	r.opened.Store(true)
	if upper != nil && !w.plan.rollbacks && sub.Cursor() > upper() {
		w.gate.fault(fmt.Errorf("%s starts at %d, later than %d", r.name, sub.Cursor(), upper()))
	}
	c.mu.Lock()
	c.opened = true
	c.mu.Unlock()
	for {
		d, err := c.next(ctx, sub)
		if c.node.dead.Load() {
			return errCrashed
		}
		if errors.Is(err, feed.ErrClosed) {
			r.follower.SawClosed()
		}
		if err != nil {
			return err
		}
		w.see(r, sub, d)
	}
}

// next reads once. A stalled connection waits for a permit first. If it then
// has to wait for an event, it is no longer stalled, and reads all there is
// when that comes: what it would find by reading just once, in the middle of a
// step, is for the Go scheduler to say.
func (c *conn) next(ctx context.Context, sub *feed.Subscription) (feed.Delivery, error) {
	for {
		c.mu.Lock()
		stalled := c.stalled
		nextCtx, stall := context.WithCancel(ctx)
		c.stall = stall
		c.mu.Unlock()
		if stalled {
			select {
			case <-c.permit:
			case <-ctx.Done():
				stall()
				return feed.Delivery{}, ctx.Err()
			}
		}
		step := c.world.gate.step.Load()
		d, err := sub.Next(nextCtx, nil)
		wasStalled := nextCtx.Err() != nil && ctx.Err() == nil
		stall()
		if wasStalled && err != nil {
			continue
		}
		if c.world.gate.step.Load() != step {
			c.mu.Lock()
			c.stalled = false
			c.mu.Unlock()
		}
		return d, err
	}
}

// see hands a delivery to the checker.
func (w *world) see(r *reader, sub *feed.Subscription, d feed.Delivery) {
	if d.Gap != nil {
		r.follower.SawGap(*d.Gap)
	}
	r.follower.Saw(d.Events()...)
	if got := r.follower.Cursor(); got != sub.Cursor() {
		w.gate.fault(fmt.Errorf("%s: the subscription is at %d, its deliveries at %d", r.name, sub.Cursor(), got))
	}
	var want []byte
	for _, e := range d.Events() {
		want = short{}.Encode(want, &e)
	}
	if got := d.Encoded(short{}); !bytes.Equal(got, want) {
		w.gate.fault(fmt.Errorf("%s: got the bytes %q, want %q", r.name, got, want))
	}
}

// short encodes events in a few bytes that tell them apart.
type short struct{}

func (short) Encode(dst []byte, e *feed.Event) []byte {
	dst = strconv.AppendUint(dst, e.ID, 10)
	dst = append(dst, ' ')
	dst = append(dst, e.Data[:min(len(e.Data), 16)]...)
	return append(dst, '\n')
}

func (c *conn) state() (opened, ended, stalled bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.opened, c.ended, c.stalled, c.err
}

// halt makes an open connection stop reading, or go on.
func (c *conn) halt(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !on && c.stalled {
		close(c.permit)
	}
	c.stalled = on
	if on && c.stall != nil {
		c.stall()
	}
}

// expected says whether a connection or a publish may end with err. When a feed
// is closed is for the checker to say.
func expected(err error) bool {
	for _, e := range []error{feed.ErrUnavailable, feed.ErrStopped, feed.ErrClosed, errCrashed, context.Canceled} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// from chooses where a new reader starts, and the last cursor that is right
// for it when the subscription is open.
func (w *world) from(name string) (feed.From, func() feed.Cursor) {
	b := w.bounds(name)
	newest := func() feed.Cursor { return feed.Cursor(w.bounds(name).Last) }
	oldest := func() feed.Cursor { return feed.Cursor(w.bounds(name).First - 1) }
	switch w.rng.IntN(6) {
	case 0:
		return feed.From{}, newest
	case 1:
		return feed.FromStart(), oldest
	case 2:
		n := uint64(w.rng.IntN(int(b.Last) + 3))
		return feed.FromNewest(n), func() feed.Cursor {
			if now := uint64(newest()); n < now {
				return max(feed.Cursor(now-n), oldest())
			}
			return oldest()
		}
	case 3:
		t := w.began.Add(time.Duration(w.rng.Int64N(int64(time.Since(w.began)) + 1)))
		return feed.FromTime(t), func() feed.Cursor {
			c, _ := w.store.Seek(context.Background(), name, t)
			return c
		}
	case 4:
		c := feed.Cursor(w.rng.IntN(int(b.Last) + 1))
		return feed.After(c), nil
	default:
		// A cursor that was never given, or not yet: from another store, say.
		c := feed.Cursor(b.Last + uint64(w.rng.IntN(3)*w.rng.IntN(200)))
		return feed.After(c), nil
	}
}
