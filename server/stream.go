package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/engine"
)

// Why the server itself ends a stream. That it is draining is errDraining.
var (
	errMaxAge  = errors.New("stream has reached its age")
	errExpired = errors.New("the token has expired")
	errGap     = errors.New("a gap, which the client wants no stream across")
	errTorn    = errors.New("the rest of an event is gone that was written in part")
)

// stream is one response that carries events: what it says and when, whatever
// writes it. A socket of the engine does, or a response.
type stream struct {
	streamEncoder
	slot
	server       *Server
	heartbeat    time.Duration
	due          time.Duration // when a keep-alive is
	endsAt       time.Duration // when the stream does, in any case; 0: never
	oldest       int64         // when the oldest event of the piece was committed, in Unix milliseconds; 0: not of interest
	tokenEnds    bool          // it is the token that ends the stream
	gapFails     bool
	backlogBytes int32 // bytes that the client has not read, of those that cannot be had again

	draining   atomic.Bool
	subscribed atomic.Pointer[feed.Subscriber]
}

// century is longer than any stream lasts, and far from the largest Duration,
// which nothing can be added to.
const century = 100 * 365 * 24 * time.Hour

// newStream returns a stream that has yet to subscribe.
func (s *Server) newStream(r *http.Request, request subscribeRequest) *stream {
	st := &stream{
		slot:     slot{address: addressOf(r)},
		server:   s,
		gapFails: request.gapFails,
		// From three quarters of it up: those that came together, or had an event
		// together, are not to be kept alive together.
		heartbeat: jitter(request.heartbeat*7/8, 1./7),
	}
	now := s.now()
	st.due = now + st.heartbeat
	if s.options.MaxAge > 0 {
		st.endsAt = now + jitter(s.options.MaxAge, 0.2)
	}
	if expires := grantOf(r.Context()).Expires(); !expires.IsZero() {
		if at := max(now+min(time.Until(expires), century), 1); st.endsAt == 0 || at < st.endsAt {
			st.endsAt, st.tokenEnds = at, true
		}
	}
	return st
}

// subscribeOn has the stream send what it subscribes to on the lane of a socket.
func (st *stream) subscribeOn(ctx context.Context, request subscribeRequest, socket *engine.Socket) error {
	dispatcher := socket.Dispatcher().(*feed.Dispatcher)
	group, err := dispatcher.SubscribeAll(ctx, request.subscriptions, socket)
	if err != nil {
		return err
	}
	return st.subscribe(request, group)
}

// subscribe has the stream send what the group has, unless there is nothing to
// stream to this client.
func (st *stream) subscribe(request subscribeRequest, group *feed.Subscriber) error {
	st.sendFrom(request, group)
	if request.gapFails {
		if err := checkGaps(group); err != nil {
			return err
		}
	}
	if request.done(group) {
		return errDelivered
	}
	return nil
}

// sendFrom has the stream send what the group has, which Closed closes.
func (st *stream) sendFrom(request subscribeRequest, group *feed.Subscriber) {
	st.begin(request, group)
	st.subscribed.Store(group)
}

// drain ends the stream.
func (st *stream) drain() {
	st.draining.Store(true)
	if group := st.subscribed.Load(); group != nil {
		group.Wake()
	}
}

// Wake implements [engine.Stream].
func (st *stream) Wake() { st.subscriber.Wake() }

// Over implements [engine.Stream].
func (st *stream) Over(now time.Duration) error {
	switch {
	case st.draining.Load():
		return errDraining
	case st.endsAt == 0 || now < st.endsAt:
		return nil
	case st.tokenEnds:
		return errExpired
	}
	return errMaxAge
}

// Due implements [engine.Stream].
func (st *stream) Due() time.Duration {
	if st.endsAt != 0 {
		return min(st.due, st.endsAt)
	}
	return st.due
}

// Next implements [engine.Stream].
func (st *stream) Next(now time.Duration) (piece []byte, err error) {
	if st.pending != nil && st.pending.skip > 0 {
		return st.goOn(now)
	}
	st.piece.of = -1
	if err := st.Over(now); err != nil {
		return st.last(err), err
	}
	for ; ; st.piece.of = -1 {
		if st.becomesLive() {
			return st.frame(st.appendLive(nil)), nil
		}
		i, d, err := st.delivery()
		switch {
		case err != nil:
			return st.last(err), err
		case i < 0:
			return st.keepAlive(now), nil
		case d.Gap != nil && st.gapFails:
			return nil, errGap // which a return with the same cursor is told
		}
		if piece = st.show(i, d, now); len(piece) > 0 {
			return piece, nil
		}
	}
}

// show delivers, and notes when that is. The piece is empty if the client is not
// shown any of it.
func (st *stream) show(i int, d feed.Delivery, now time.Duration) (piece []byte) {
	piece, events := st.deliver(i, d)
	if len(piece) > 0 && !st.hides() {
		st.due = now + st.heartbeat
	}
	// History is not late, however old.
	if len(piece) > 0 && len(events) > 0 && events[0].ID > st.subscriber.At(i).Bounds().Last {
		st.oldest = events[0].Time.UnixMilli()
	}
	return piece
}

// goOn returns what is left of a piece of which the beginning is written. Nothing
// else may come in between.
func (st *stream) goOn(now time.Duration) (piece []byte, err error) {
	if err := st.Over(now); err != nil {
		return nil, err
	}
	for i, skip := st.pending.of, st.pending.skip; ; {
		d := st.pending.delivery
		if len(d.Events()) == 0 {
			var ok bool
			if d, ok, err = st.subscriber.PollAt(i); err != nil {
				return nil, err
			}
			if !ok {
				st.due = now + st.heartbeat
				return nil, nil
			}
		}
		if d.Gap != nil {
			return nil, errTorn
		}
		if piece = st.show(i, d, now); len(piece) > skip {
			st.piece.skipped = int32(skip)
			return piece[skip:], nil
		}
		if skip -= len(piece); skip == 0 {
			return st.Next(now)
		}
		if st.pending == nil {
			st.pending = &pending{of: i}
		}
		st.pending.skip = skip
	}
}

// More implements [engine.Stream].
func (st *stream) More() bool {
	return st.pending != nil || st.subscriber.Stirred() || st.becomesLive()
}

func (st *stream) delivery() (i int, d feed.Delivery, err error) {
	if st.pending != nil {
		return st.pending.of, st.pending.delivery, nil
	}
	return st.subscriber.Poll()
}

// Yield implements [engine.Stream].
func (st *stream) Yield() { st.unread() }

// Unwritten implements [engine.Stream].
func (st *stream) Unwritten(written int, left []byte) (keep []byte, err error) {
	if st.unwritten(written) {
		return nil, nil
	}
	st.unread()
	if !st.server.memory.Take(feed.HoldStreams, len(left)) {
		return nil, errNoMemory
	}
	st.slot.held += int32(len(left))
	st.backlogBytes = int32(len(left))
	return bytes.Clone(left), nil
}

// keepAlive returns what keeps the connection alive, if it is time.
func (st *stream) keepAlive(now time.Duration) []byte {
	if now < st.due {
		return nil
	}
	st.due = now + st.heartbeat
	return st.tick()
}

// last returns what the client has to know when it is the server that ends the
// stream.
func (st *stream) last(why error) []byte {
	switch {
	case errors.Is(why, errExpired):
		return st.expired()
	case errors.Is(why, errDraining), errors.Is(why, errMaxAge), errors.Is(why, feed.ErrStopped):
		return st.farewell(st.server.options.Retry)
	case errors.Is(why, feed.ErrClosed):
		return st.end(nil)
	}
	return nil
}

// clean says whether a stream that ended for that reason has said all there is.
// Any other breaks off without the last chunk: some clients never come back
// after a response that ended cleanly.
func clean(why error) bool { return errors.Is(why, feed.ErrClosed) || errors.Is(why, errExpired) }

// Written implements [engine.Stream].
func (st *stream) Written() {
	if st.backlogBytes > 0 {
		st.server.memory.Give(feed.HoldStreams, int(st.backlogBytes))
		st.slot.held -= st.backlogBytes
		st.backlogBytes = 0
	}
	if st.oldest != 0 {
		st.server.deliveries.observe(time.Now().UnixMilli() - st.oldest)
		st.oldest = 0
	}
}

// Closed implements [engine.Stream].
func (st *stream) Closed(why error) {
	st.server.dismiss(st)
	if st.subscriber != nil {
		st.subscriber.Abandon()
		st.subscriber.Close()
	}
	if _, panicked := errors.AsType[*engine.PanicError](why); panicked {
		st.server.logger.Error("stream failed", "from", st.address, "error", why)
	}
	if st.server.logger.Enabled(context.Background(), slog.LevelDebug) {
		var feeds []string
		for i := range st.places {
			feeds = append(feeds, st.subscriber.At(i).Feed())
		}
		st.server.logger.Debug("stream ended", "feeds", feeds, "from", st.address, "reason", why)
	}
}

// stream sends events until the client leaves, or the server ends it.
func (s *Server) stream(w http.ResponseWriter, r *http.Request, request subscribeRequest) {
	st := s.newStream(r, request)
	if err := s.admit(st, request.cost()); err != nil {
		s.rejectFull(w, r, err)
		return
	}
	ours := true // to close
	defer func() {
		if ours { // and something has panicked
			st.Closed(&engine.PanicError{Value: recover(), Stack: debug.Stack()})
			panic(http.ErrAbortHandler)
		}
	}()
	var group *feed.WaitingGroup
	var err error
	if socket := s.socketFor(r); socket != nil {
		err = st.subscribeOn(r.Context(), request, socket)
		if err == nil {
			ours = false
			setStreamHead(w.Header(), request.format)
			s.take(w, r, socket, st)
			return
		}
	} else if group, err = s.hub.SubscribeAll(r.Context(), request.subscriptions); err == nil {
		err = st.subscribe(request, group.Subscriber)
	}
	response := newNetHTTPCarrier(w, r, s.options.WriteTimeout)
	switch {
	case err == nil:
		writeStreamHead(w, request.format)
	case errors.Is(err, feed.ErrUnavailable) && accepts(r, "text/event-stream"):
		writeStreamHead(w, request.format)
		if group, err = response.awaitStore(r.Context(), st, request, s.hub); err == nil {
			st.sendFrom(request, group.Subscriber)
		}
	default:
		ours = false
		st.Closed(err)
		s.failStream(w, r, err)
		return
	}
	if err == nil {
		err = response.carry(r.Context(), st, group)
	}
	ours = false
	st.Closed(err)
	if !clean(err) {
		panic(http.ErrAbortHandler)
	}
}

// failStream answers with the problem that err is. One that is not the
// client's own must not stop a browser for good.
func (s *Server) failStream(w http.ResponseWriter, r *http.Request, err error) {
	status := statusOf(err)
	if status < http.StatusInternalServerError || !accepts(r, "text/event-stream") {
		s.writeError(w, r, err)
		return
	}
	if status == http.StatusInternalServerError {
		s.logFailure(r, err)
	}
	answerRetryLater(w, r, status, "")
}

var _ engine.Stream = (*stream)(nil)
