package server

import (
	"io"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// receive reads the body: its events first, and if one of them is refused, what follows.
func (p *publishStream) receive(body io.Reader) {
	buffer := make([]byte, streamBuffer)
	held := 0
	defer func() { p.server.memory.Give(feed.HoldPublishes, held) }()
	end := p.receiveEvents(body, buffer, &held)
	end.strange = p.parser.strange
	p.parser = bodyParser{}
	p.received <- end
	for dropped := 0; !end.broken && dropped < lingerBytes; {
		n, err := body.Read(buffer)
		dropped += n
		end.broken = err != nil
	}
}

// receiveEvents reads the body to its end or to an event that cannot be accepted. held
// is what it has charged to the budget.
func (p *publishStream) receiveEvents(body io.Reader, buffer []byte, held *int) bodyEnd {
	for {
		if more := len(buffer) + p.parser.held() - *held; more != 0 {
			if err := p.charge(more); err != nil {
				return bodyEnd{err: err}
			}
			*held += more
		}
		p.reading.Store(max(1, int64(p.server.now())))
		n, readErr := body.Read(buffer)
		p.reading.Store(0)
		select {
		case <-p.over:
			return bodyEnd{err: errStreamOver, broken: readErr != nil}
		default:
		}
		err := p.parser.write(buffer[:n])
		if err == nil && readErr == io.EOF {
			err = p.parser.end()
		}
		switch {
		case err != nil || readErr == io.EOF:
			return bodyEnd{err: err, broken: readErr != nil}
		case readErr != nil:
			return bodyEnd{err: invalid("reading the body: %v", readErr), broken: true}
		}
	}
}

// charge charges n bytes to the budget, and waits while it is full.
func (p *publishStream) charge(n int) error {
	began := p.server.now()
	for !p.server.memory.Take(feed.HoldPublishes, n) {
		if p.server.now()-began > streamPatience {
			return feed.ErrOverloaded
		}
		if !p.pause(streamRetry) {
			return errStreamOver
		}
	}
	return nil
}

// pause waits for d, and reports false if the stream is over.
func (p *publishStream) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.over:
		return false
	}
}

// add adds an event to those that wait. While there are too many, it waits, and with it
// the client.
func (p *publishStream) add(e streamedEvent) error {
	if err := p.awaitRate(); err != nil {
		return err
	}
	size := len(e.draft.Data) + streamEventCost
	if err := p.charge(size); err != nil {
		return err
	}
	for {
		p.mu.Lock()
		if n := len(p.waiting); n == 0 || n < streamEvents && p.bytes+size <= streamBytes {
			p.waiting = append(p.waiting, e)
			p.bytes += size
			switch {
			case n == 0:
				p.due.Reset(streamGather)
			case n+1 == streamEvents:
				p.due.Reset(0)
			}
			p.mu.Unlock()
			return nil
		}
		p.due.Reset(0)
		p.mu.Unlock()
		select {
		case <-p.room:
		case <-p.over:
			p.server.memory.Give(feed.HoldPublishes, size)
			return errStreamOver
		}
	}
}

// takeWaiting returns the events that wait. They are no longer charged to the budget:
// the publisher charges those that it takes.
func (p *publishStream) takeWaiting() []streamedEvent {
	p.mu.Lock()
	defer p.mu.Unlock()
	events := p.waiting
	p.server.memory.Give(feed.HoldPublishes, p.bytes)
	p.waiting, p.bytes = nil, 0
	p.due.Stop()
	select {
	case p.room <- struct{}{}:
	default:
	}
	return events
}

// drop gives back what the events take that have not been committed.
func (p *publishStream) drop() { p.takeWaiting() }
