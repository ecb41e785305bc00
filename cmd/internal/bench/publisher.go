package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"
)

// feedState is a feed, as far as it has come.
type feedState struct {
	index    int
	name     string
	head     []byte // of a request that publishes to it, up to the length
	streams  int64  // how many subscribers it has
	number   atomic.Uint64
	accepted atomic.Int64  // events
	last     atomic.Uint64 // the highest id that a publish was answered with
}

// plan is what the publishers are to do.
type plan struct {
	rate     float64       // publishes a second in all; 0 is as fast as they go
	duration time.Duration // how long
	each     int           // or how many events in each feed
}

// publisher publishes on a connection of its own, one request after
// another.
type publisher struct {
	run    *run
	index  int
	feeds  []*feedState // in turn
	mu     sync.Mutex   // held to set conn, and to use it from elsewhere
	conn   net.Conn
	reader *bufio.Reader
	body   []byte
	out    []byte
	answer bytes.Buffer
}

// publishersOf makes n of them. Each feed has one publisher, so that its numbers
// are published one after another, unless there are more publishers than feeds.
func (r *run) publishersOf(n int) []*publisher {
	all := make([]*publisher, n)
	for i := range all {
		all[i] = &publisher{run: r, index: i}
		for f := i % len(r.feeds); f < len(r.feeds); f += n {
			all[i].feeds = append(all[i].feeds, r.feeds[f])
		}
	}
	return all
}

// drive has the publishers carry out the plan. It returns an error if one of
// them could not go on.
func (r *run) drive(parent context.Context, publishers []*publisher, plan plan) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	var working sync.WaitGroup
	begin := r.now()
	for _, p := range publishers {
		working.Go(func() {
			if err := p.work(ctx, plan, begin, len(publishers)); err != nil {
				cancel(fmt.Errorf("publish: %w", err))
			}
		})
	}
	working.Wait()
	if parent.Err() != nil {
		return nil // what was measured so far counts
	}
	return context.Cause(ctx)
}

// work publishes what falls to this one of all publishers.
func (p *publisher) work(ctx context.Context, plan plan, begin time.Duration, publishers int) error {
	timer, err := newTimer()
	if err != nil {
		return err
	}
	defer timer.close()
	defer context.AfterFunc(ctx, p.hurry)()
	for i := 0; ctx.Err() == nil; i++ {
		f := p.feeds[i%len(p.feeds)]
		n, due := p.run.Batch, p.run.now()
		if plan.each > 0 {
			n = min(n, plan.each-i/len(p.feeds)*p.run.Batch)
		}
		if plan.rate > 0 {
			due = begin + time.Duration(float64(p.index+i*publishers)/plan.rate*1e9)
		}
		if n <= 0 || plan.each == 0 && due >= begin+plan.duration {
			return nil
		}
		if err := timer.sleep(ctx, due-p.run.now()); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := p.publish(ctx, f, n, due); err != nil {
			return err
		}
	}
	return nil
}

// publish publishes n events. A failure that may pass is counted; an error is
// for one that will not.
func (p *publisher) publish(ctx context.Context, f *feedState, n int, due time.Duration) error {
	p.fill(f, n, due)
	err := p.exchange(ctx)
	r := p.run
	if err == nil {
		meter := r.meter.Load()
		meter.published.Add(1)
		meter.events.Add(int64(n))
		meter.expected.Add(int64(n) * f.streams)
		meter.answer.add(r.now() - due)
		f.accepted.Add(int64(n))
		f.saw(p.lastID())
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return nil // nothing was sent
	}
	note(&r.faults.failed, &r.faults.firstFailure, fmt.Errorf("a publish failed: %w", err))
	refused, ok := errors.AsType[refusedStatus](err)
	if ok && refused.permanent() {
		return err
	}
	if !ok {
		p.close()
	}
	if p.conn == nil {
		if err := p.dial(ctx); err != nil {
			return err
		}
	}
	_ = wait(ctx, 50*time.Millisecond) // the caller looks at ctx itself
	return nil
}

func (p *publisher) dial(ctx context.Context) error {
	conn, err := p.run.target.dial(ctx, p.index)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conn, p.reader = conn, bufio.NewReaderSize(conn, 4<<10)
	return nil
}

func (p *publisher) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.Close()
		p.conn = nil
	}
}

// hurry cuts the time short that an answer may take.
func (p *publisher) hurry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		_ = p.conn.SetDeadline(time.Now().Add(interruptedWait))
	}
}

// fill makes the request.
func (p *publisher) fill(f *feedState, n int, due time.Duration) {
	p.body = p.body[:0]
	kind := "text/plain"
	for range n {
		e := event{feed: f.index, number: f.number.Add(1), due: due}
		if n == 1 {
			p.body = e.appendData(p.body, p.run.mark, p.run.Size)
			break
		}
		kind = "application/x-ndjson"
		p.body = append(p.body, `{"data":"`...)
		p.body = append(e.appendData(p.body, p.run.mark, p.run.Size), "\"}\n"...)
	}
	p.out = append(p.out[:0], f.head...)
	p.out = fmt.Appendf(p.out, "Content-Type: %s\r\nContent-Length: %d\r\n\r\n", kind, len(p.body))
	p.out = append(p.out, p.body...)
}

// exchange sends the request and reads the answer, which is waited for a little
// even when ctx has ended.
func (p *publisher) exchange(ctx context.Context) error {
	if p.conn == nil {
		if err := p.dial(ctx); err != nil {
			return err
		}
	}
	if err := p.conn.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		return err
	}
	if ctx.Err() != nil {
		p.hurry()
	}
	if _, err := p.conn.Write(p.out); err != nil {
		return err
	}
	head, err := readHead(p.reader)
	if err != nil {
		return err
	}
	p.answer.Reset()
	switch {
	case head.chunked:
		_, err = p.answer.ReadFrom(httputil.NewChunkedReader(p.reader))
		if err == nil {
			_, err = p.reader.Discard(2) // the end of the empty trailer
		}
	case head.length >= 0:
		_, err = io.CopyN(&p.answer, p.reader, int64(head.length))
	case head.status != 204:
		_, err = p.answer.ReadFrom(p.reader)
		head.closing = true
	}
	if head.closing || err != nil {
		p.close()
	}
	if err == nil && head.status/100 != 2 {
		err = refusedStatus(head.status)
	}
	return err
}

// lastID returns the id of the last event in the answer, or 0.
func (p *publisher) lastID() uint64 {
	key := []byte(`"id":`)
	at := bytes.LastIndex(p.answer.Bytes(), key)
	if !p.run.Peer.Dense || at < 0 {
		return 0
	}
	id, _ := leadingNumber(p.answer.Bytes()[at+len(key):])
	return id
}

func (f *feedState) saw(id uint64) {
	for last := f.last.Load(); id > last; last = f.last.Load() {
		if f.last.CompareAndSwap(last, id) {
			return
		}
	}
}
