package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// rawBlock is one block of an event stream.
type rawBlock struct {
	kind, data string
	id         string
	hasID      bool
}

// eventSource does what the standard has an EventSource do, from bare bytes: it
// parses blocks, drops one that is cut short, keeps the last id and comes back
// with it until it gets an answer other than 200.
type eventSource struct {
	url    func() string // asked for each connection
	from   string        // the Last-Event-ID of the first one
	token  string
	narrow bool           // with room for little in the system's buffers
	take   func(rawBlock) // called in order, from one goroutine
	ended  func(error)    // the same, unless it is nil: a stream has, nil if cleanly
	pause  time.Duration

	mu       sync.Mutex
	lastID   string
	opened   int     // connections that were answered 200
	endings  []error // of those; nil for a clean end
	finished int     // the status that stopped it
	problem  string  // and the body with that
}

// run follows until ctx ends, or the server's answer ends it.
func (s *eventSource) run(ctx context.Context) {
	s.lastID = s.from
	dialer := &net.Dialer{}
	if s.narrow {
		dialer.Control = narrow
	}
	transport := &http.Transport{DialContext: dialer.DialContext}
	defer transport.CloseIdleConnections()
	for ctx.Err() == nil && s.finished == 0 {
		resp, err := s.connect(ctx, transport)
		if err == nil {
			err = s.read(resp)
			if resp.StatusCode == http.StatusOK && ctx.Err() == nil {
				s.mu.Lock()
				s.endings = append(s.endings, err)
				s.mu.Unlock()
				if s.ended != nil {
					s.ended(err)
				}
			}
		}
		if s.status() != 0 {
			return
		}
		select {
		case <-time.After(max(s.pause, 5*time.Millisecond)):
		case <-ctx.Done():
		}
	}
}

func (s *eventSource) connect(ctx context.Context, transport *http.Transport) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if s.lastID != "" {
		req.Header.Set("Last-Event-ID", s.lastID)
	}
	if s.token != "" {
		req.Header.Set("Authorization", "Bearer "+s.token)
	}
	return transport.RoundTrip(req)
}

// read takes what one response brings, and returns how it ended: nil if it did
// so cleanly.
func (s *eventSource) read(resp *http.Response) error {
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body) // it is for the report
		s.mu.Lock()
		defer s.mu.Unlock()
		s.finished, s.problem = resp.StatusCode, string(text)
		return nil
	}
	s.mu.Lock()
	s.opened++
	s.mu.Unlock()
	var b rawBlock
	var data []string
	for lines := bufio.NewReaderSize(resp.Body, 64<<10); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
		if line == "\n" {
			if b.data = strings.Join(data, "\n"); len(data) > 0 {
				s.dispatch(b)
			}
			b, data = rawBlock{}, nil
			continue
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		switch value = strings.TrimPrefix(value, " "); name {
		case "event":
			b.kind = value
		case "data":
			data = append(data, value)
		case "id":
			b.id, b.hasID = value, true
		case "retry":
			if n, err := strconv.Atoi(value); err == nil {
				s.pause = time.Duration(n) * time.Millisecond
			}
		}
	}
}

func (s *eventSource) dispatch(b rawBlock) {
	if b.hasID {
		s.mu.Lock()
		s.lastID = b.id
		s.mu.Unlock()
	}
	s.take(b)
}

// status returns the status that has stopped it, 0 while it runs.
func (s *eventSource) status() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.finished
}

// ends returns how its streams have ended so far.
func (s *eventSource) ends() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.endings)
}

func (s *eventSource) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.lastID
	if len(last) > 200 {
		last = last[:200] + "…"
	}
	return fmt.Sprintf("%d connections, their ends %v, the last id %q, stopped by %d %s", s.opened, s.endings, last, s.finished, s.problem)
}

// start runs it until the test or stop ends it.
func (s *eventSource) start(c interface{ Cleanup(func()) }) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { s.run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); work.Wait() })
	c.Cleanup(stop)
	return stop
}

// always returns the same address for each connection.
func always(url string) func() string { return func() string { return url } }
