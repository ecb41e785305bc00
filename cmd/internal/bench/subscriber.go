package bench

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"
)

// subscriber is one stream of one feed.
type subscriber struct {
	run    *run
	index  int
	feed   *feedState
	cursor string // where it starts; empty for now
	after  uint64 // the number of the last event it does not get
	wants  int64  // how many events it is to catch up with
	mark   uint64 // the number of an event whose id is kept in marked
	marked atomic.Pointer[string]

	conn    net.Conn
	stream  stream
	dialled time.Duration
	read    time.Duration // when what is parsed now was read

	ids, numbers order
	got          atomic.Int64
}

// open connects. Once it returns, no event of the feed may be missed.
func (s *subscriber) open(ctx context.Context) error {
	s.dialled = s.run.now()
	conn, reader, head, err := s.run.target.openStream(ctx, s.index, s.run.Peer.subscribed(s.feed.name), s.cursor)
	if err != nil {
		return err
	}
	s.conn = conn
	s.ids, s.numbers = orderAfter(s.after), orderAfter(s.after)
	s.stream = stream{
		mark:    s.run.mark,
		chunked: head.chunked,
		deliver: s.deliver,
		stray:   func() { s.run.faults.strays.Add(1) },
	}
	s.run.reading.Go(func() {
		rest, err := reader.Peek(reader.Buffered())
		if err == nil {
			err = s.take(rest)
		}
		reader = nil // thousands of them would be kept
		if err == nil {
			err = readStream(conn, s.take)
		}
		s.run.streamEnded(err)
	})
	return nil
}

func (s *subscriber) take(p []byte) error {
	s.read = s.run.now()
	return s.stream.take(p)
}

// deliver counts an event and checks its place.
func (s *subscriber) deliver(e *event) {
	faults := &s.run.faults
	if e.feed != s.feed.index {
		faults.strays.Add(1)
		return
	}
	verdict, ok := s.place(e)
	switch {
	case !ok:
		faults.strays.Add(1)
		return
	case verdict == repeated:
		faults.repeated.Add(1)
		return
	case verdict == late:
		faults.reordered.Add(1)
	}
	if s.mark > 0 && e.number == s.mark {
		id := string(e.id)
		s.marked.Store(&id)
	}
	meter := s.run.meter.Load()
	shard := &meter.shards[s.index%len(meter.shards)]
	shard.latency.add(s.read - e.due)
	if s.got.Add(1) == s.wants {
		meter.returned.add(s.read - s.dialled)
	}
	shard.delivered.Add(1)
}

// place judges an event by its id, and by the number in its data where the
// numbers were published one after another.
func (s *subscriber) place(e *event) (verdict verdict, ok bool) {
	if !s.run.Peer.Dense {
		return s.numbers.step(e.number), len(e.id) > 0
	}
	id, digits := leadingNumber(e.id)
	if digits == 0 || digits != len(e.id) {
		return inOrder, false
	}
	verdict = s.ids.step(id)
	if s.run.inTurn {
		if byNumber := s.numbers.step(e.number); verdict == inOrder {
			verdict = byNumber
		}
	}
	return verdict, true
}

// lost returns how many of the accepted events have not come.
func (s *subscriber) lost() int64 {
	return max(0, s.feed.accepted.Load()-int64(s.after)-s.got.Load())
}

// readWhole is readStream for connections that are more than a socket.
func readWhole(conn net.Conn, take func([]byte) error) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := conn.Read(buf)
		if n > 0 {
			if err := take(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
}

// subscribe opens the subscribers, some hundreds at a time, and returns when
// all are open.
func (r *run) subscribe(ctx context.Context, subscribers []*subscriber) error {
	const atOnce = 256
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tokens := make(chan struct{}, atOnce)
	var opened atomic.Int64
	for _, s := range subscribers {
		tokens <- struct{}{}
		if ctx.Err() != nil {
			<-tokens
			break
		}
		go func() {
			defer func() { <-tokens }()
			if err := s.open(ctx); err != nil {
				cancel(err)
				return
			}
			opened.Add(1)
		}()
	}
	for range atOnce {
		tokens <- struct{}{}
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("open subscriber %d of %d: %w", opened.Load()+1, len(subscribers), err)
	}
	return nil
}

// unsubscribe closes the subscribers and returns when nothing is read any more.
func (r *run) unsubscribe(subscribers []*subscriber) {
	r.closing.Store(true)
	for _, s := range subscribers {
		if s.conn != nil {
			s.conn.Close()
		}
	}
	r.reading.Wait()
	r.closing.Store(false)
}

// streamEnded notes a stream that ended before it was closed.
func (r *run) streamEnded(err error) {
	if !r.closing.Load() {
		note(&r.faults.ended, &r.faults.firstEnd, fmt.Errorf("a stream ended early: %w", err))
	}
}
