package server

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/rejoin/rejoin/feed"
)

// Why the server itself ends a stream. That it is draining is errDraining.
var (
	errMaxAge  = errors.New("stream has reached its age")
	errExpired = errors.New("the token has expired")
	errGap     = errors.New("a gap, which the client wants no stream across")
)

// storeRetry is the time between two tries to open a stream while the store is
// away.
const storeRetry = 250 * time.Millisecond

// stream is one response that carries events.
type stream struct {
	request   subscribeRequest
	address   string // of the client
	writer    http.ResponseWriter
	control   *http.ResponseController
	http2     bool
	timeout   time.Duration // for one write
	retry     time.Duration
	heartbeat *time.Ticker
	latency   prometheus.Observer
	end       context.CancelCauseFunc // ends the stream, for a reason
}

// stream sends events until the client leaves, or the server ends it.
//
// Unless all has been said, the connection is broken off without the last
// chunk: some clients never come back after a response that ended cleanly.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, request subscribeRequest) {
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	st := &stream{
		request: request,
		address: addressOf(r),
		writer:  w,
		control: http.NewResponseController(w),
		http2:   r.ProtoMajor > 1,
		timeout: s.options.WriteTimeout,
		retry:   s.options.Retry,
		latency: s.deliveries,
		end:     end,
	}
	if err := s.admit(st); err != nil {
		s.turnAway(w, r, err)
		return
	}
	defer s.dismiss(st)
	asked := time.Now()
	group, err := s.begin(r.Context(), request)
	if err != nil && !(errors.Is(err, feed.ErrUnavailable) && accepts(r, "text/event-stream")) {
		s.refuseStream(w, r, err)
		return
	}
	writeStreamHead(w, request.form)
	defer st.limit(s.options.MaxAge, grantOf(ctx).Expires())()
	err = st.flush()
	st.rest()
	if err == nil && group == nil {
		group, err = st.awaitStore(ctx, s, asked)
	}
	if group != nil {
		defer group.Close()
	}
	if err == nil {
		err = st.run(ctx, group)
	}
	s.logger.DebugContext(r.Context(), "stream ended", "path", r.URL.Path, "from", r.RemoteAddr, "reason", err)
	if !errors.Is(err, feed.ErrClosed) && !errors.Is(err, errExpired) {
		panic(http.ErrAbortHandler)
	}
}

// limit starts the stream's clocks: of its keep-alives, of its age, if that has
// a limit, and of the client's token, if that expires.
func (st *stream) limit(maxAge time.Duration, expires time.Time) (stop func()) {
	st.heartbeat = time.NewTicker(st.request.heartbeat)
	stops := []func(){st.heartbeat.Stop}
	after := func(d time.Duration, cause error) {
		timer := time.AfterFunc(d, func() { st.end(cause) })
		stops = append(stops, func() { timer.Stop() })
	}
	if maxAge > 0 {
		after(jitter(maxAge, 0.2), errMaxAge)
	}
	if !expires.IsZero() {
		after(time.Until(expires), errExpired)
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// refuseStream answers with the problem that err is. One that is not the
// client's own must not stop a browser for good.
func (s *Server) refuseStream(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	if status < http.StatusInternalServerError || !accepts(r, "text/event-stream") {
		s.writeError(w, r, err)
		return
	}
	if status == http.StatusInternalServerError {
		s.logFailure(r, err)
	}
	shed(w, r, status, "")
}

// awaitStore subscribes as soon as the store can.
func (st *stream) awaitStore(ctx context.Context, s *Server, asked time.Time) (*feed.Group, error) {
	for i, start := range st.request.starts {
		if start.From == (feed.From{}) {
			// "Now" is before the head went out: what is published from then on
			// must not be missed, and the store may be back for other nodes
			// first. Stores keep whole milliseconds.
			st.request.starts[i].From = feed.FromTime(asked.Truncate(time.Millisecond))
		}
	}
	again := time.NewTicker(storeRetry)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			group, err := s.hub.SubscribeAll(ctx, st.request.starts)
			if err == nil || !errors.Is(err, feed.ErrUnavailable) {
				return group, err
			}
		case <-st.heartbeat.C:
			if err := st.write(st.request.form.keepAlive()); err != nil {
				return nil, err
			}
		case <-ctx.Done():
			cause := context.Cause(ctx)
			if errors.Is(cause, errExpired) {
				return nil, errors.Join(cause, st.write(st.request.form.appendControl(nil, expired)))
			}
			return nil, cause
		}
	}
}

// run is the stream itself: it greets, sends what the subscriptions deliver,
// and keeps the connection alive in between. It returns why it ended.
func (st *stream) run(ctx context.Context, group *feed.Group) error {
	session := newSession(st.request, st.retry, group.Subscriptions())
	if err := st.write(session.open()); err != nil {
		return err
	}
	for {
		i, d, err := group.Next(ctx, st.heartbeat.C)
		switch {
		case err != nil:
			return st.last(ctx, session, err)
		case i < 0:
			err = st.write(session.tick())
		case d.Gap != nil && st.request.gapFails:
			return errGap // which a return with the same cursor is told
		default:
			err = st.deliver(ctx, session, i, d)
		}
		if err != nil {
			return err
		}
	}
}

// last sends what the client has to know when it is the server that ends the
// stream.
func (st *stream) last(ctx context.Context, session *session, err error) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, errExpired):
		return errors.Join(cause, st.write(session.expired()))
	case errors.Is(cause, errDraining), errors.Is(cause, errMaxAge), errors.Is(err, feed.ErrStopped):
		return errors.Join(cause, st.write(session.farewell()))
	}
	return err
}

// deliver writes what the client is shown of a delivery, if anything. After that
// no keep-alive is due for a while, unless one has to show where a cursor is.
func (st *stream) deliver(ctx context.Context, session *session, i int, d feed.Delivery) error {
	shown := false
	for blocks := range session.deliver(i, d) {
		if len(blocks) == 0 {
			continue
		}
		if shown = true; !slices.Contains(session.hidden, true) {
			st.heartbeat.Reset(st.request.heartbeat)
		}
		if err := st.write(blocks); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return st.last(ctx, session, ctx.Err())
		}
	}
	if at, live := session.committed(i, d); live && shown {
		st.latency.Observe(max(0, time.Since(at).Seconds())) // clocks of nodes differ
	}
	return nil
}

func (st *stream) write(b []byte) error {
	_ = st.control.SetWriteDeadline(time.Now().Add(st.timeout))
	if _, err := st.writer.Write(b); err != nil {
		return err
	}
	err := st.flush()
	st.rest()
	return err
}

// rest is for the time in which nothing is being written: over HTTP/2, a
// deadline would end the stream all the same.
func (st *stream) rest() {
	if st.http2 {
		_ = st.control.SetWriteDeadline(time.Time{})
	}
}

func (st *stream) flush() error { return st.control.Flush() }
