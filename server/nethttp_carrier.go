package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/auth"
)

// netHTTPCarrier writes a stream with net/http, on the goroutine of its request: over
// HTTP/2 and HTTP/1.0, which the engine cannot carry, and while the store is away.
type netHTTPCarrier struct {
	stream *stream
	writer http.ResponseWriter
	rc     *http.ResponseController
	http2  bool
	stall  *stallWatch
}

func newNetHTTPCarrier(w http.ResponseWriter, r *http.Request, st *stream) netHTTPCarrier {
	st.opens(w, r)
	rc := http.NewResponseController(w)
	return netHTTPCarrier{st, w, rc, r.ProtoMajor > 1, newStallWatch(r, rc, st.server.options().WriteTimeout, &st.server.counters.slow)}
}

// carry writes the stream, whose subscriber can be waited for. It returns the reason
// for which the stream ended.
func (c netHTTPCarrier) carry(ctx context.Context, subscriber *feed.BlockingSubscriber) error {
	st := c.stream
	if err := c.write(st.first()); err != nil {
		return err
	}
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		piece, err := st.Next(st.server.now())
		if len(piece) > 0 {
			if err := errors.Join(c.writePiece(piece), ctx.Err()); err != nil {
				return err
			}
			st.Written()
		}
		if err != nil {
			return err
		}
		if len(piece) > 0 {
			continue
		}
		due.Reset(st.Due() - st.server.now())
		if _, err := subscriber.Wait(ctx, due.C); err != nil && !errors.Is(err, feed.ErrStopped) {
			return err
		}
	}
}

// carryLater waits until the store is back, subscribes, and carries the stream.
func (c netHTTPCarrier) carryLater(ctx context.Context, request subscribeRequest) error {
	subscriber, err := c.awaitStore(ctx, request)
	if err != nil {
		return err
	}
	c.stream.attach(request, subscriber.Subscriber)
	if request.format == (bareFormat{}) {
		// Too late for another status, so the client returns for it. With
		// closed=204, the stream ends cleanly: there is nothing to return for.
		if err := c.stream.server.checkStream(ctx, request, subscriber.Subscriber); err != nil {
			return err
		}
	}
	return c.carry(ctx, subscriber)
}

// storeRetry is the time between two tries to subscribe while the store is away.
const storeRetry = 250 * time.Millisecond

// awaitStore subscribes as soon as the store can be asked, and keeps the stream alive
// until then.
func (c netHTTPCarrier) awaitStore(ctx context.Context, request subscribeRequest) (*feed.BlockingSubscriber, error) {
	if err := c.begin(request); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	retry := time.NewTicker(storeRetry)
	defer retry.Stop()
	results := make(chan subscribeResult)
	for asking := false; ; {
		select {
		case <-retry.C:
			if !asking {
				asking = true
				go trySubscribe(ctx, c.stream.server.hub, request.subscriptions, results)
			}
		case result := <-results:
			if result.err == nil || !errors.Is(result.err, feed.ErrUnavailable) {
				return result.subscriber, result.err
			}
			asking = false
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := c.keepWaiting(request.format); err != nil {
			return nil, err
		}
	}
}

// begin sends the head of a stream that subscribes later.
func (c netHTTPCarrier) begin(request subscribeRequest) error {
	for i, subscription := range request.subscriptions {
		if subscription.From == (feed.From{}) {
			// "Now" is the moment before the head goes out: the stream must have
			// everything published after it, and other nodes may reach the store
			// first.
			request.subscriptions[i].From = feed.FromMoment(time.Now())
		}
	}
	return c.flush()
}

// carryHeld waits until the application has decided about the stream, and carries it if
// the application allows it.
func (c netHTTPCarrier) carryHeld(ctx context.Context, request subscribeRequest, access *access) error {
	if err := c.begin(request); err != nil {
		return err
	}
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	tick := time.NewTicker(storeRetry)
	defer tick.Stop()
	next := time.NewTimer(recheckRetry())
	defer next.Stop()
	answers := make(chan error, 1)
	for {
		select {
		case <-next.C:
			go func() { answers <- access.ask(asking) }()
		case err := <-answers:
			switch {
			case err == nil:
				if err := c.stream.server.rechecks.join(c.stream, access.grant); err != nil {
					return err
				}
				return c.carryLater(ctx, request)
			case !errors.Is(err, auth.ErrUnavailable):
				c.stream.end(errRevoked)
			default:
				next.Reset(recheckRetry())
			}
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := c.keepWaiting(request.format); err != nil {
			return err
		}
	}
}

type subscribeResult struct {
	subscriber *feed.BlockingSubscriber
	err        error
}

// trySubscribe tries once to subscribe, on a goroutine of its own because the store may
// not answer.
func trySubscribe(ctx context.Context, hub *feed.Hub, subscriptions []feed.SubscribeRequest, results chan<- subscribeResult) {
	subscriber, err := hub.SubscribeAll(ctx, subscriptions)
	select {
	case results <- subscribeResult{subscriber, err}:
	case <-ctx.Done():
		if err == nil {
			subscriber.Close()
		}
	}
}

// keepWaiting keeps a stream without a subscriber alive. It returns the reason for
// which the stream must end, if there is one.
func (c netHTTPCarrier) keepWaiting(f streamFormat) error {
	st := c.stream
	now := st.server.now()
	if err := st.Over(now); err != nil {
		if errors.Is(err, errExpired) || errors.Is(err, errRevoked) {
			err = errors.Join(err, c.write(f.appendControl(nil, expired(err))))
		}
		return err
	}
	if now < st.due {
		return nil
	}
	st.due = now + st.heartbeat
	return c.write(f.keepAlive())
}

// pendingCost is about what the pending rest of a delivery takes in memory.
const pendingCost = 64 << 10

// writePiece writes a piece. While the client reads it, the memory budget is charged
// for it and for the pending rest of its delivery.
func (c netHTTPCarrier) writePiece(piece []byte) error {
	held := len(piece)
	if c.stream.pending != nil {
		held += pendingCost
	}
	memory := c.stream.server.memory
	if !memory.Take(feed.HoldStreams, held) {
		return errNoMemory
	}
	defer memory.Give(feed.HoldStreams, held)
	return c.write(piece)
}

func (c netHTTPCarrier) write(b []byte) error {
	for c.stall.conn == nil && len(b) > unseenBytes {
		if err := c.writeOnce(b[:unseenBytes]); err != nil {
			return err
		}
		b = b[unseenBytes:]
	}
	return c.writeOnce(b)
}

func (c netHTTPCarrier) writeOnce(b []byte) error {
	c.stall.begin()
	defer c.stall.end()
	if _, err := c.writer.Write(b); err != nil {
		return err
	}
	return c.flush()
}

// flush sends the written bytes. Over HTTP/2, a deadline would end the stream even
// between two writes.
func (c netHTTPCarrier) flush() error {
	err := c.rc.Flush()
	if c.http2 {
		_ = c.rc.SetWriteDeadline(time.Time{})
	}
	return err
}
