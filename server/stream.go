package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/sse"
)

// Why the server itself ends a stream.
var (
	errDraining = errors.New("draining")
	errMaxAge   = errors.New("stream has reached its age")
)

// storeRetry is the time between two tries to open a stream while the store is
// away.
const storeRetry = 250 * time.Millisecond

// stream is one response that carries events.
type stream struct {
	feed      string
	writer    http.ResponseWriter
	control   *http.ResponseController
	timeout   time.Duration // for one write
	retry     time.Duration
	heartbeat *time.Ticker
	period    time.Duration
	end       context.CancelCauseFunc // breaks the stream off, for a reason
}

// stream sends sub's events until the client leaves, or the server ends it. A
// nil sub means that the store is away: the stream waits for it.
//
// However it ends, the connection is broken off without the last chunk: some
// clients never come back after a response that ended cleanly.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, request subscribeRequest, sub *feed.Subscription) {
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	st := &stream{
		feed:      request.feed,
		writer:    w,
		control:   http.NewResponseController(w),
		timeout:   s.options.WriteTimeout,
		retry:     s.options.Retry,
		heartbeat: time.NewTicker(request.heartbeat),
		period:    request.heartbeat,
		end:       end,
	}
	defer st.heartbeat.Stop()
	defer func() {
		if sub != nil {
			sub.Close()
		}
	}()
	if !s.admit(st) {
		shed(w, r, "this node is stopping")
		return
	}
	defer s.dismiss(st)
	if s.options.MaxAge > 0 {
		age := time.AfterFunc(jitter(s.options.MaxAge, 0.2), func() { end(errMaxAge) })
		defer age.Stop()
	}

	if sub == nil && request.from == (feed.From{}) {
		// "Now" is before the head goes out: what is published from then on
		// must not be missed, and the store may be back for other nodes first.
		// Stores keep whole milliseconds.
		request.from = feed.FromTime(time.Now().Truncate(time.Millisecond))
	}
	writeStreamHead(w)
	err := st.flush()
	if err == nil && sub == nil {
		sub, err = st.awaitStore(ctx, s.hub, request.from)
	}
	if err == nil {
		err = st.run(ctx, sub)
	}
	s.logger.DebugContext(r.Context(), "stream ended", "feed", request.feed, "from", r.RemoteAddr, "reason", err)
	panic(http.ErrAbortHandler)
}

// awaitStore opens the subscription as soon as the store can.
func (st *stream) awaitStore(ctx context.Context, hub *feed.Hub, from feed.From) (*feed.Subscription, error) {
	again := time.NewTicker(storeRetry)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			sub, err := hub.Subscribe(ctx, st.feed, from)
			if err == nil || !errors.Is(err, feed.ErrUnavailable) {
				return sub, err
			}
		case <-st.heartbeat.C:
			if err := st.keepAlive(); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// run is the stream itself: it greets, sends what the subscription delivers,
// and keeps the connection alive in between. It returns why it ended.
func (st *stream) run(ctx context.Context, sub *feed.Subscription) error {
	if err := st.send(st.opening(sub).Append(nil)); err != nil {
		return err
	}
	for {
		d, err := sub.Next(ctx, st.heartbeat.C)
		switch {
		case err != nil:
			return st.farewell(ctx, sub, err)
		case d.Gap != nil:
			err = st.send(st.gap(*d.Gap).Append(nil))
		case len(d.Events()) > 0:
			err = st.send(d.Encoded(sse.Blocks))
		default:
			err = st.keepAlive()
		}
		if err != nil {
			return err
		}
	}
}

// farewell tells the client where it stands and when to come back, if it is
// the server that ends the stream.
func (st *stream) farewell(ctx context.Context, sub *feed.Subscription, err error) error {
	cause := context.Cause(ctx)
	if errors.Is(cause, errDraining) || errors.Is(cause, errMaxAge) || errors.Is(err, feed.ErrStopped) {
		return errors.Join(cause, st.send(st.cursor(sub).Append(nil)))
	}
	return err
}

// send writes whole blocks.
func (st *stream) send(blocks []byte) error {
	st.heartbeat.Reset(st.period)
	return st.write(blocks)
}

func (st *stream) keepAlive() error { return st.write([]byte(sse.KeepAlive)) }

func (st *stream) write(b []byte) error {
	_ = st.control.SetWriteDeadline(time.Now().Add(st.timeout))
	if _, err := st.writer.Write(b); err != nil {
		return err
	}
	return st.flush()
}

func (st *stream) flush() error { return st.control.Flush() }

func (st *stream) opening(sub *feed.Subscription) sse.Control {
	return st.controlBlock("feed.open", sub.Cursor(), struct {
		Feed   string `json:"feed"`
		Cursor string `json:"cursor"`
		First  uint64 `json:"first"`
		Last   uint64 `json:"last"`
	}{st.feed, sub.Cursor().String(), sub.Bounds().First, sub.Bounds().Last}, true)
}

func (st *stream) gap(g feed.Gap) sse.Control {
	return st.controlBlock("feed.gap", g.Cursor(), struct {
		Feed    string         `json:"feed"`
		After   string         `json:"after"`
		Resumes uint64         `json:"resumes"`
		Reason  feed.GapReason `json:"reason"`
	}{st.feed, g.After.String(), g.Resumes, g.Reason}, false)
}

func (st *stream) cursor(sub *feed.Subscription) sse.Control {
	return st.controlBlock("feed.cursor", sub.Cursor(), struct {
		Feed   string `json:"feed"`
		Cursor string `json:"cursor"`
	}{st.feed, sub.Cursor().String()}, true)
}

// controlBlock builds a block that leaves the client at cursor. With retry, it
// also tells the client, and no two of them the same, when to come back:
// browsers spread their returns by nothing of their own.
func (st *stream) controlBlock(name string, cursor feed.Cursor, data any, retry bool) sse.Control {
	text, err := json.Marshal(data)
	if err != nil {
		panic(err) // all data is plain structs of our own
	}
	c := sse.Control{Type: name, Data: string(text), ID: cursor.String()}
	if retry {
		c.Retry = jitter(st.retry, 0.5)
	}
	return c
}
