package server

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/auth"
	"github.com/rejoin/rejoin/server/engine"
)

// The reasons for which the server ends a stream, beside errDraining, errNoMemory and those
// in recheck.go.
var (
	errMaxAge  = errors.New("the stream has reached its maximum age")
	errExpired = errors.New("the token has expired")
	errGap     = errors.New("a gap, and the client asked for an error in that case")
	errTorn    = errors.New("an event was written in part, and its rest was deleted")
)

// stream is one response that carries events. It decides which bytes come next, and
// when; a socketCarrier or a netHTTPCarrier writes them.
type stream struct {
	streamEncoder
	slot
	recheckSlot
	server       *Server
	heartbeat    time.Duration
	due          time.Duration // time of the next keep-alive
	endsAt       time.Duration // 0 means never
	oldest       int64         // commit time of the piece's oldest event in Unix milliseconds; 0 if it is not measured
	tokenEnds    bool          // the stream ends at endsAt because its token expires
	gapFails     bool
	slow         bool  // see setSlow
	fromStore    bool  // the event of oldest was read from the store
	backlogBytes int32 // bytes that a full socket keeps, charged to the memory budget

	ending     atomic.Pointer[error]           // set by end
	opened     bool                            // see opens
	access     *accessEntry                    // nil without an access log
	subscribed atomic.Pointer[feed.Subscriber] // the encoder's subscriber, for end
}

var _ engine.Stream = (*stream)(nil)

// century is longer than any stream lasts, and small enough to add to.
const century = 100 * 365 * 24 * time.Hour

// newStream returns a stream without a subscriber.
func (s *Server) newStream(r *http.Request, request subscribeRequest) *stream {
	st := &stream{
		slot:     slot{address: s.addressOf(r)},
		server:   s,
		gapFails: request.gapFails,
		// From three quarters of it up, so that streams that opened together, or had
		// an event together, have their keep-alives at different times.
		heartbeat: jitter(request.heartbeat*7/8, 1./7),
	}
	now := s.now()
	st.due = now + st.heartbeat
	if s.options().MaxAge > 0 {
		st.endsAt = now + jitter(s.options().MaxAge, 0.2)
	}
	if expires := tokenExpiry(grantOf(r.Context())); !expires.IsZero() {
		if at := max(now+min(time.Until(expires), century), 1); st.endsAt == 0 || at < st.endsAt {
			st.endsAt, st.tokenEnds = at, true
		}
	}
	return st
}

// tokenExpiry returns when the grant ends if it is from a token; zero means never. About
// the others, the application is asked again.
func tokenExpiry(grant auth.Grant) time.Time {
	if question, _ := grant.Question(); question != nil {
		return time.Time{}
	}
	return grant.Expires()
}

// attach makes the stream send what the subscriber reads. Closed closes it.
func (st *stream) attach(request subscribeRequest, subscriber *feed.Subscriber) {
	st.encode(request, subscriber)
	st.subscribed.Store(subscriber)
}

// drain ends the stream soon.
func (st *stream) drain() { st.end(errDraining) }

// end ends the stream soon. The first reason counts.
func (st *stream) end(why error) {
	st.ending.CompareAndSwap(nil, &why)
	if subscriber := st.subscribed.Load(); subscriber != nil {
		subscriber.Wake()
	}
}

// Wake implements [engine.Stream].
func (st *stream) Wake() { st.subscriber.Wake() }

// first returns the first bytes of the stream.
func (st *stream) first() []byte {
	block := st.openEvent(st.server.options().Retry)
	if st.access != nil {
		st.access.bytes += int64(len(block))
	}
	return block
}

// Over implements [engine.Stream].
func (st *stream) Over(now time.Duration) error {
	ending := st.ending.Load()
	switch {
	case ending != nil:
		return *ending
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
	piece, err = st.next(now)
	if st.access != nil {
		st.access.bytes += int64(len(piece))
	}
	return piece, err
}

func (st *stream) next(now time.Duration) (piece []byte, err error) {
	if st.pending != nil && st.pending.skip > 0 {
		return st.continuePiece(now)
	}
	st.piece.of = -1
	if err := st.Over(now); err != nil {
		return st.lastBytes(err), err
	}
	for ; ; st.piece.of = -1 {
		if st.becomesLive() {
			return st.frame(st.appendLive(nil)), nil
		}
		i, d, err := st.nextDelivery()
		switch {
		case err != nil:
			return st.lastBytes(err), err
		case i < 0:
			return st.keepAlive(now), nil
		case d.Gap != nil && st.gapFails:
			return nil, errGap // a client that returns with its cursor gets this as an answer
		}
		if piece = st.show(i, d, now); len(piece) > 0 {
			return piece, nil
		}
	}
}

func (st *stream) nextDelivery() (i int, d feed.Delivery, err error) {
	if st.pending != nil {
		return st.pending.of, st.pending.delivery, nil
	}
	return st.subscriber.Poll()
}

// continuePiece returns the rest of a piece whose beginning was written. Nothing else
// may come in between.
func (st *stream) continuePiece(now time.Duration) (piece []byte, err error) {
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
			return st.next(now)
		}
		if st.pending == nil {
			st.pending = &pending{of: i}
		}
		st.pending.skip = skip
	}
}

// show turns a delivery into a piece, and notes its times. The piece is empty if the
// client's types exclude all of it.
func (st *stream) show(i int, d feed.Delivery, now time.Duration) (piece []byte) {
	piece, events := st.deliver(i, d)
	if len(piece) > 0 && !st.hasHidden() {
		st.due = now + st.heartbeat
	}
	// History does not count as late.
	if len(piece) > 0 && len(events) > 0 && events[0].ID > st.subscriber.At(i).Bounds().Last {
		st.oldest, st.fromStore = events[0].Time.UnixMilli(), d.FromStore()
	}
	return piece
}

// keepAlive returns a keep-alive if one is due.
func (st *stream) keepAlive(now time.Duration) []byte {
	if now < st.due {
		return nil
	}
	st.due = now + st.heartbeat
	return st.heartbeatBlock()
}

// lastBytes returns what the client gets before the server ends the stream.
func (st *stream) lastBytes(why error) []byte {
	switch {
	case errors.Is(why, errExpired), errors.Is(why, errRevoked):
		return st.expiredEvent(why)
	case errors.Is(why, errDraining), errors.Is(why, errUndecided), errors.Is(why, errMaxAge), errors.Is(why, feed.ErrStopped):
		return st.farewell(st.server.options().Retry)
	case errors.Is(why, feed.ErrClosed):
		return st.finalChunk(nil)
	}
	return nil
}

// endsCleanly reports whether a stream that ended for this reason is complete. Any
// other breaks off without the last chunk: some clients never reconnect after a
// response that ended cleanly.
func endsCleanly(why error) bool {
	return errors.Is(why, feed.ErrClosed) || errors.Is(why, errExpired) || errors.Is(why, errRevoked) || errors.Is(why, errDelivered)
}

// More implements [engine.Stream].
func (st *stream) More() bool {
	return st.pending != nil || st.subscriber.Pending() || st.becomesLive()
}

// Yield implements [engine.Stream].
func (st *stream) Yield() { st.release() }

// Unwritten implements [engine.Stream].
func (st *stream) Unwritten(written int, left []byte) (keep []byte, err error) {
	defer st.recyclePiece()
	st.setSlow(true)
	if st.takeBack(written) {
		if st.access != nil {
			st.access.bytes -= int64(len(left)) // they come again
		}
		return nil, nil
	}
	st.release()
	if err := st.Held(len(left)); err != nil {
		return nil, err
	}
	return bytes.Clone(left), nil
}

// Held implements [engine.Stream].
func (st *stream) Held(n int) error {
	st.setSlow(true)
	if !st.server.memory.Take(feed.HoldStreams, n) {
		return errNoMemory
	}
	st.slot.held += int32(n)
	st.backlogBytes += int32(n)
	return nil
}

// Written implements [engine.Stream].
func (st *stream) Written() {
	st.recyclePiece()
	st.setSlow(false)
	if st.backlogBytes > 0 {
		st.server.memory.Give(feed.HoldStreams, int(st.backlogBytes))
		st.slot.held -= st.backlogBytes
		st.backlogBytes = 0
	}
	if st.oldest != 0 {
		late := time.Duration(time.Now().UnixMilli()-st.oldest) * time.Millisecond
		st.server.counters.deliveries[pathIndex(st.fromStore)].Observe(late)
		st.oldest = 0
	}
}

// Closed implements [engine.Stream].
func (st *stream) Closed(why error) {
	st.server.dismiss(st)
	st.server.rechecks.leave(st)
	st.setSlow(false)
	if st.opened {
		st.server.counters.end(why)
	}
	st.own = nil // not recycled: after an error, net/http may still read it
	if st.subscriber != nil {
		st.subscriber.Abandon()
		st.subscriber.Close()
	}
	if _, panicked := errors.AsType[*engine.PanicError](why); panicked {
		st.server.logger.Error("stream failed", "address", st.address, "error", why)
	}
	if st.access != nil {
		for i := 0; st.many && i < len(st.hidden); i++ {
			st.access.feed = strings.TrimPrefix(st.access.feed+","+st.subscriber.At(i).Feed(), ",")
		}
		st.access.feed = shortened(st.access.feed)
		st.access.bytes -= int64(st.backlogBytes)
		st.access.log(st.server.logger, http.StatusOK, endingOf(why))
	}
}
