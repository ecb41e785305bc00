package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// storeRetry is the time between two tries to open a stream while the store is
// away.
const storeRetry = 250 * time.Millisecond

// netHTTPCarrier carries a stream as net/http does, on the goroutine of its request:
// over HTTP/2, TLS and HTTP/1.0, where a socket of the engine cannot, and where
// the store is away.
type netHTTPCarrier struct {
	writer http.ResponseWriter
	rc     *http.ResponseController
	http2  bool
	stall  *stallWatch
}

func newNetHTTPCarrier(w http.ResponseWriter, r *http.Request, timeout time.Duration) netHTTPCarrier {
	control := http.NewResponseController(w)
	return netHTTPCarrier{w, control, r.ProtoMajor > 1, newStallWatch(r, control, timeout)}
}

// awaitStore returns the stream's group as soon as the store can be asked for it.
func (r netHTTPCarrier) awaitStore(ctx context.Context, st *stream, request subscribeRequest, hub *feed.Hub) (*feed.WaitingGroup, error) {
	for i, start := range request.subscriptions {
		if start.From == (feed.From{}) {
			// "Now" is before the head goes out: what is published from then on
			// must not be missed, and the store may be back for other nodes
			// first.
			request.subscriptions[i].From = feed.FromMoment(time.Now())
		}
	}
	if err := r.flush(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	again := time.NewTicker(storeRetry)
	defer again.Stop()
	opened := make(chan opening)
	for asking := false; ; {
		select {
		case <-again.C:
			if !asking {
				asking = true
				go open(ctx, hub, request.subscriptions, opened)
			}
		case o := <-opened:
			if o.err == nil || !errors.Is(o.err, feed.ErrUnavailable) {
				return o.group, o.err
			}
			asking = false
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if err := r.keepWaiting(st, request.format); err != nil {
			return nil, err
		}
	}
}

// opening is what a try to open a stream has come to.
type opening struct {
	group *feed.WaitingGroup
	err   error
}

// open tries to open a stream. A store that does not answer holds up nobody else.
func open(ctx context.Context, hub *feed.Hub, starts []feed.SubscribeRequest, opened chan<- opening) {
	group, err := hub.SubscribeAll(ctx, starts)
	select {
	case opened <- opening{group, err}:
	case <-ctx.Done():
		if err == nil {
			group.Close()
		}
	}
}

// keepWaiting keeps a stream alive that has not been opened, or returns why it has
// to end.
func (r netHTTPCarrier) keepWaiting(st *stream, f streamFormat) error {
	now := st.server.now()
	if err := st.Over(now); err != nil {
		if errors.Is(err, errExpired) {
			err = errors.Join(err, r.write(f.appendControl(nil, expired)))
		}
		return err
	}
	if now < st.due {
		return nil
	}
	st.due = now + st.heartbeat
	return r.write(f.keepAlive())
}

// carry writes what the stream of the group has to say. It returns why the stream
// ended.
func (r netHTTPCarrier) carry(ctx context.Context, st *stream, group *feed.WaitingGroup) error {
	if err := r.write(st.open(st.server.options.Retry)); err != nil {
		return err
	}
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	for {
		piece, err := st.Next(st.server.now())
		if len(piece) > 0 {
			if err := errors.Join(r.writeHeld(piece, st), ctx.Err()); err != nil {
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
		if _, err := group.Wait(ctx, due.C); err != nil && !errors.Is(err, feed.ErrStopped) {
			return err
		}
	}
}

// writeHeld writes a piece, which the node holds until the client has read it, with
// what is left behind it.
func (r netHTTPCarrier) writeHeld(piece []byte, st *stream) error {
	held := len(piece)
	if st.pending != nil {
		held += restCost
	}
	if !st.server.memory.Take(feed.HoldStreams, held) {
		return errNoMemory
	}
	defer st.server.memory.Give(feed.HoldStreams, held)
	return r.write(piece)
}

// restCost is what the rest of a delivery takes in memory, roughly.
const restCost = 64 << 10

func (r netHTTPCarrier) write(b []byte) error {
	for r.stall.conn == nil && len(b) > unseenBytes {
		if err := r.writeAtOnce(b[:unseenBytes]); err != nil {
			return err
		}
		b = b[unseenBytes:]
	}
	return r.writeAtOnce(b)
}

func (r netHTTPCarrier) writeAtOnce(b []byte) error {
	r.stall.begin()
	defer r.stall.end()
	if _, err := r.writer.Write(b); err != nil {
		return err
	}
	return r.flush()
}

// flush sends what was written. Over HTTP/2, a deadline would end the stream even
// while nothing is being written.
func (r netHTTPCarrier) flush() error {
	err := r.rc.Flush()
	if r.http2 {
		_ = r.rc.SetWriteDeadline(time.Time{})
	}
	return err
}
