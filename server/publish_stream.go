package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/auth"
)

const (
	// Events of one body that arrive within 5 ms are committed together. The rest is
	// for clocks and networks: without it, a producer of 200 events a second would
	// often have the second one come just too late.
	streamGather = 5*time.Millisecond + 500*time.Microsecond
	// So many events, or bytes of them, are committed at once. As many may wait for
	// that commit to end; then the server stops reading.
	streamEvents = 256
	streamBytes  = 1 << 20
	// What an event takes in memory beside its data, roughly.
	streamEventCost = 256
	// How long a stream waits for room among the publishes that wait for the store.
	streamPatience = 10 * time.Second
	streamRetry    = 20 * time.Millisecond
	// A client that still sends after its answer gets this long to read it: if the
	// connection were closed with unread bytes, the answer could be lost.
	lingerTime  = 2 * time.Second
	lingerBytes = 16 << 20
	// The buffer that a body is read into.
	streamBuffer = 4 << 10
)

var (
	errBodySilent = errors.New("the body was silent for too long")
	errStreamOver = errors.New("the stream is over")
)

// publishStream publishes the events of a body as they arrive: receive reads the body
// and run commits its events, each on a goroutine of its own. At most one commit is
// under way, because two could be stored either way round.
type publishStream struct {
	recheckSlot
	server  *Server
	request publishRequest
	limit   *publisher
	parser  bodyParser

	due      *time.Timer   // when the waiting events are to be committed
	room     chan struct{} // gets a token when there is room for more
	over     chan struct{} // closed when run has ended: what follows is dropped
	received chan bodyEnd  // gets the end of the events
	revoked  chan error    // gets the reason from end
	reading  atomic.Int64  // since when a read waits for bytes, on the server's clock; 0 if none does

	mu      sync.Mutex
	waiting []streamedEvent
	bytes   int // of waiting, as charged to the budget

	// Only run uses these.
	ifLast      *feed.ID // that the next event has to follow, if the request asks for that
	events      int      // that are stored
	replayed    int      // of them, by an earlier request
	first, last feed.ID
	caughtUp    bool // the last event was not replayed
}

// bodyEnd is why no more events come from a body.
type bodyEnd struct {
	err     error // nil if the body is complete
	broken  bool  // the body cannot be read any further
	strange int   // a line that may have been meant for an event, see bodyParser
}

// publishStream publishes the events of a body while it arrives.
func (s *Server) publishStream(w http.ResponseWriter, r *http.Request, request publishRequest) error {
	watch, err := s.hub.WatchClose(request.feed)
	if err != nil {
		return err
	}
	defer watch.Stop()
	s.publishers.enter()
	defer s.publishers.leave()
	// HTTP/2 always permits an answer in mid-body, and a test's writer may not know how.
	rc := http.NewResponseController(w)
	_ = rc.EnableFullDuplex()
	_ = rc.SetReadDeadline(time.Time{})

	p := s.newPublishStream(request)
	p.limit = s.publisherOf(r)
	grant := grantOf(r.Context())
	if err := s.rechecks.join(p, grant); err != nil {
		return err
	}
	defer s.rechecks.leave(p)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.receive(r.Body)
	}()
	ended, err := p.run(context.WithoutCancel(r.Context()), watch, grant)
	close(p.over)
	if !ended && r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	if err != nil {
		s.writeError(w, r, &streamError{p.events, err})
	} else {
		s.logClosed(w, r, request)
		p.writeAnswer(w)
	}
	if !ended {
		_ = rc.Flush()
		if r.ProtoMajor == 1 {
			closeWrite(r.Context())
			select {
			case <-done:
			case <-time.After(lingerTime):
			}
		}
		_ = rc.SetReadDeadline(time.Now().Add(-time.Second))
	}
	<-done
	p.drop()
	return nil
}

func (s *Server) newPublishStream(request publishRequest) *publishStream {
	p := &publishStream{
		server:   s,
		request:  request,
		due:      time.NewTimer(time.Hour),
		room:     make(chan struct{}, 1),
		over:     make(chan struct{}),
		received: make(chan bodyEnd, 1),
		revoked:  make(chan error, 1),
		ifLast:   request.ifLast,
	}
	p.due.Stop()
	p.parser = bodyParser{
		feed:      request.feed,
		eventType: request.eventType,
		lines:     request.media == mediaLines,
		limit:     s.options().EventBytes,
		take:      p.add,
	}
	return p
}

// end ends the stream. What is not being committed yet is dropped.
func (p *publishStream) end(why error) {
	select {
	case p.revoked <- why:
	default:
	}
}

// closeWrite closes the server's side of the request's connection. The client's kernel
// then reports a closed connection instead of dropping the answer.
func closeWrite(ctx context.Context) {
	conn := ctx.Value(connKey{})
	for {
		if c, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
			return
		}
		over, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return
		}
		conn = over.NetConn()
	}
}

// run commits events until the body ends or something ends it. It reports whether the
// body has been read to its end.
func (p *publishStream) run(ctx context.Context, watch *feed.CloseWatch, grant auth.Grant) (ended bool, err error) {
	silent := p.server.options().PublishIdle
	idle := time.NewTimer(silent)
	defer idle.Stop()
	expiry := time.NewTimer(time.Hour)
	defer expiry.Stop()
	if expires := tokenExpiry(grant); !expires.IsZero() {
		expiry.Reset(time.Until(expires))
	} else {
		expiry.Stop()
	}
	for {
		select {
		case err := <-p.revoked: // before anything else
			return false, err
		default:
		}
		select {
		case <-p.due.C:
			err = p.commit(ctx)
		case end := <-p.received:
			return end.broken, p.finish(ctx, end)
		case <-watch.Closed():
			// Where a key is repeated, the store decides: what the closed feed has is
			// not published again.
			if p.request.key == "" || p.caughtUp || p.events == 0 && watch.WasOpen() {
				err = fmt.Errorf("%w: %s", feed.ErrClosed, p.request.feed)
			}
		case <-expiry.C:
			err = p.finish(ctx, bodyEnd{err: fmt.Errorf("%w: it has expired", auth.ErrBadToken)})
		case err = <-p.revoked:
		case <-p.server.publishers.stopping:
			err = p.finish(ctx, bodyEnd{err: feed.ErrStopped})
		case <-idle.C:
			left := silent
			if since := p.reading.Load(); since > 0 {
				left -= p.server.now() - time.Duration(since)
			}
			if left <= 0 {
				err = fmt.Errorf("%w: %v", errBodySilent, silent)
			}
			idle.Reset(left)
		}
		if err != nil {
			return false, err
		}
	}
}

// finish commits what has arrived, and closes the feed if the body was complete and the
// request asks for that.
func (p *publishStream) finish(ctx context.Context, end bodyEnd) error {
	if err := p.commit(ctx); err != nil {
		return err
	}
	if end.err != nil {
		return end.err
	}
	if p.events == 0 && end.strange > 0 {
		return &lineError{end.strange, invalid("the body has no event: a block needs a line that begins with data:")}
	}
	if !p.request.close {
		return nil
	}
	_, err := p.publish(ctx, feed.Publication{Feed: p.request.feed, IfLast: p.ifLast, Close: true})
	return err
}

// commit stores the events that wait.
func (p *publishStream) commit(ctx context.Context) error {
	events := p.takeWaiting()
	if len(events) == 0 {
		return nil
	}
	if p.request.key != "" {
		return p.commitKeyed(ctx, events)
	}
	err := p.commitBatch(ctx, events)
	if bad, ok := errors.AsType[*feed.DraftError](err); ok && bad.Index > 0 {
		// What came before a refused event is stored.
		if err := p.commitBatch(ctx, events[:bad.Index]); err != nil {
			return &lineError{events[0].line, err}
		}
		return &lineError{events[bad.Index].line, bad.Err}
	}
	if err != nil {
		return &lineError{events[0].line, err}
	}
	return nil
}

// commitBatch stores events in one publication.
func (p *publishStream) commitBatch(ctx context.Context, events []streamedEvent) error {
	drafts := make([]feed.Draft, len(events))
	for i, e := range events {
		drafts[i] = e.draft
	}
	_, err := p.publish(ctx, feed.Publication{Feed: p.request.feed, Drafts: drafts, IfLast: p.ifLast})
	return err
}

// commitKeyed stores events each with a key of its own.
func (p *publishStream) commitKeyed(ctx context.Context, events []streamedEvent) error {
	chain := make([]feed.Publication, len(events))
	for i, e := range events {
		key := p.request.key + "/" + strconv.Itoa(p.events+i+1)
		chain[i] = feed.Publication{Feed: p.request.feed, Drafts: []feed.Draft{e.draft}, Key: key, IfLast: p.ifLast}
	}
	stored, err := p.publish(ctx, chain...)
	if err != nil && stored < len(events) {
		return &lineError{events[stored].line, err}
	}
	return err
}

// publish publishes a chain, counts its events, and returns how many publications are
// stored. While too many publishes wait, it waits, too.
func (p *publishStream) publish(ctx context.Context, chain ...feed.Publication) (stored int, err error) {
	var results []feed.Result
	for began := p.server.now(); ; {
		results, err = p.server.publisher.PublishChain(ctx, chain)
		if !errors.Is(err, feed.ErrOverloaded) || p.server.now()-began > streamPatience || !p.pause(streamRetry) {
			break
		}
	}
	for _, r := range results {
		if len(r.Events) == 0 {
			continue
		}
		if p.events == 0 {
			p.first = r.Events[0].ID
		}
		p.last = r.Events[len(r.Events)-1].ID
		p.events += len(r.Events)
		if p.caughtUp = !r.Replayed; r.Replayed {
			p.replayed++
		}
		if p.ifLast != nil {
			p.ifLast = new(p.last)
		}
	}
	return len(results), err
}

// writeAnswer answers that the whole body is stored.
func (p *publishStream) writeAnswer(w http.ResponseWriter) {
	answer := append(make([]byte, 0, len(p.request.feed)+100), `{"feed":"`...)
	answer = append(answer, p.request.feed...)
	answer = append(answer, '"')
	if p.events > 0 {
		answer = p.first.Append(append(answer, `,"first":`...))
		answer = p.last.Append(append(answer, `,"last":`...))
		w.Header().Set("ETag", lastTag(p.last))
	}
	answer = strconv.AppendInt(append(answer, `,"events":`...), int64(p.events), 10)
	answer = strconv.AppendInt(append(answer, `,"replayed":`...), int64(p.replayed), 10)
	writeBody(w, "application/json", http.StatusCreated, append(answer, "}\n"...))
}

// publishers counts the streams that are being published, so that a drain can wait for
// them and then end them.
type publishers struct {
	mu       sync.Mutex
	count    int
	waiting  []chan struct{} // closed when there is none
	stopping chan struct{}   // closed when they have to end
}

func (p *publishers) enter() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
}

func (p *publishers) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count--; p.count == 0 {
		p.release()
	}
}

func (p *publishers) release() {
	for _, c := range p.waiting {
		close(c)
	}
	p.waiting = nil
}

// none returns a channel that is closed when no stream is left.
func (p *publishers) none() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := make(chan struct{})
	p.waiting = append(p.waiting, c)
	if p.count == 0 {
		p.release()
	}
	return c
}

// stop makes all streams end, now and later ones.
func (p *publishers) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.stopping:
	default:
		close(p.stopping)
	}
}
