package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// PublishedStream is what PublishStream publishes its events to, and how.
type PublishedStream struct {
	Feed string
	// Key is the beginning of the events' idempotency keys, of at most 200 visible
	// ASCII characters: the same events in the same order with the same Key are
	// stored once. PublishStream makes one where it is empty.
	Key string
	// IfLast, if not nil, keeps other producers out: the first event has to follow
	// this id, and each further one the one before it.
	IfLast *feed.ID
	// Close closes the feed behind the last event, for ever.
	Close bool
}

// StreamResult is what is known to be stored of a stream.
type StreamResult struct {
	Events, Replayed int     // Replayed ones were stored before, under the same keys
	First, Last      feed.ID // 0 if there are no events
}

const (
	// A request ends after so many events, bytes of them, or that long, and the next
	// one goes on. Until its answer has come, its events are kept to be sent again.
	partEvents = 10_000
	partBytes  = 1 << 20
	partAge    = time.Hour
	// How often a silent request sends a line that is no event.
	partHeartbeat = 15 * time.Second

	maxStreamKey = 200
)

// PublishStream publishes what comes from drafts, as it comes, until the channel is
// closed. It needs one request for very many events. After a broken connection, or an
// answer that asks to come back later, it sends again what is not known to be stored;
// however often that happens, each event is stored once, and they keep their order.
//
// The result has the events that are known to be stored, also when there is an error.
// An event that the server refused has a [*Problem] as the error, and ends the stream.
// When ctx ends, so does the stream: what was taken from drafts is sent, and has five
// seconds to be answered. The error is then the cause of ctx, or one that wraps
// feed.ErrUncertain if more may be stored than the result has. Options.Patience bounds
// how long one event is tried.
func (c *Client) PublishStream(ctx context.Context, s PublishedStream, drafts <-chan feed.Draft) (StreamResult, error) {
	var total StreamResult
	if err := feed.CheckName(s.Feed); err != nil {
		return total, err
	}
	if s.Key == "" {
		s.Key = rand.Text()
	}
	if err := feed.CheckKey(s.Key); err != nil {
		return total, err
	}
	if len(s.Key) > maxStreamKey {
		return total, invalid("the key of a stream has at most %d characters, not %d", maxStreamKey, len(s.Key))
	}
	for n := 1; ; n++ {
		p := &part{client: c, stream: s, key: s.Key + "." + strconv.Itoa(n), from: drafts}
		err := p.settle(ctx)
		total.add(p.result)
		if s.IfLast != nil && total.Events > 0 {
			s.IfLast = &total.Last
		}
		switch {
		case err != nil:
			return total, err
		case p.refused != nil:
			return total, p.refused
		case ctx.Err() != nil:
			return total, context.Cause(ctx)
		case p.last && s.Close:
			_, err = c.Publish(ctx, Publication{Feed: s.Feed, IfLast: s.IfLast, Close: true})
			return total, err
		case p.last:
			return total, nil
		}
	}
}

func (r *StreamResult) add(more StreamResult) {
	if r.Events == 0 {
		r.First = more.First
	}
	if more.Events > 0 {
		r.Last = more.Last
	}
	r.Events += more.Events
	r.Replayed += more.Replayed
}

// part is the events of one request.
type part struct {
	client *Client
	stream PublishedStream
	key    string
	from   <-chan feed.Draft

	lines   []string // taken from the channel
	bytes   int
	began   time.Time
	ended   bool  // no line follows
	last    bool  // the channel is closed
	refused error // of a draft that cannot be sent

	result StreamResult
}

// settle sends the part until it is stored or refused.
func (p *part) settle(ctx context.Context) error {
	retry, failing := p.client.backoff(), time.Time{}
	for {
		sent, err := len(p.lines), p.attempt(ctx)
		if err == nil {
			return nil
		}
		var asked time.Duration
		if problem, ok := errors.AsType[*Problem](err); ok {
			p.result = StreamResult{Events: problem.Events}
			if !problem.Temporary() {
				return err
			}
			asked = problem.RetryAfter
		}
		if len(p.lines) > sent {
			retry.reset() // it had a connection that took events
			failing = time.Time{}
		}
		if failing.IsZero() {
			failing = time.Now()
		}
		wait := retry.next(asked)
		patience := p.client.options.Patience
		if ctx.Err() == nil && (patience == 0 || time.Since(failing)+wait <= patience) {
			p.client.retrying(err, wait)
			if sleep(ctx, wait) == nil {
				continue
			}
		}
		if len(p.lines) > 0 {
			return &uncertainError{err}
		}
		return err
	}
}

// attempt makes one request of the lines that there are, and of those that come.
func (p *part) attempt(ctx context.Context) error {
	requested, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	body, to := io.Pipe()
	defer body.Close()
	address := p.client.URL("v1", "feeds", p.stream.Feed, "events")
	address.RawQuery = "stream=true"
	req, err := http.NewRequestWithContext(requested, http.MethodPost, address.String(), body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Idempotency-Key", p.key)
	if p.stream.IfLast != nil {
		req.Header.Set("If-Match", `"`+p.stream.IfLast.String()+`"`)
	}
	answered := make(chan error, 1)
	go func() { answered <- p.request(req) }()

	// A write fails when the request has ended; answered has the reason.
	wrote := make(chan struct{})
	lines := make(chan string)
	go func() {
		defer close(wrote)
		defer to.Close()
		for line := range lines {
			if _, err := io.WriteString(to, line); err != nil {
				return
			}
		}
	}()
	err, done := p.feed(ctx, lines, wrote, answered)
	close(lines)
	if !done {
		limit, stop := context.WithTimeout(context.Background(), answerPatience)
		defer stop()
		interrupted := context.AfterFunc(ctx, func() {
			_ = sleep(limit, lastAnswerPatience)
			cancel()
		})
		defer interrupted()
		late := context.AfterFunc(limit, cancel)
		defer late()
		err = <-answered
	}
	cancel()
	body.Close()
	<-wrote
	if err == nil && p.result.Events != len(p.lines) {
		err = violation("of a stream of %d events, the answer counts %d", len(p.lines), p.result.Events)
	}
	return err
}

// feed sends lines until the part ends, or an answer comes before that: then done is
// set and err is about the answer.
func (p *part) feed(ctx context.Context, lines chan<- string, wrote <-chan struct{}, answered <-chan error) (err error, done bool) {
	give := func(line string) bool {
		select {
		case lines <- line:
			return true
		case <-wrote: // the request has ended
		case err = <-answered:
			done = true
		}
		return false
	}
	for _, line := range p.lines {
		if !give(line) {
			return err, done
		}
	}
	if p.began.IsZero() {
		p.began = time.Now()
	}
	heartbeat := time.NewTicker(partHeartbeat)
	defer heartbeat.Stop()
	for !p.ended {
		if len(p.lines) >= partEvents || p.bytes >= partBytes || len(p.lines) > 0 && time.Since(p.began) >= partAge {
			p.ended = true
			break
		}
		select {
		case d, ok := <-p.from:
			if !ok {
				p.ended, p.last = true, true
			} else if line, bad := lineOf(d, p.stream.Feed); bad != nil {
				p.ended, p.refused = true, bad
			} else {
				p.lines, p.bytes = append(p.lines, line), p.bytes+len(line)
				if !give(line) {
					return err, done
				}
			}
		case <-heartbeat.C:
			if !give("\n") {
				return err, done
			}
		case err := <-answered:
			return err, true
		case <-ctx.Done():
			p.ended = true
		}
	}
	return nil, false
}

// lineOf returns a draft as a line of the body.
func lineOf(d feed.Draft, name string) (string, error) {
	if d.Feed != "" && d.Feed != name {
		return "", invalid("it is for the feed %s, the stream for %s", d.Feed, name)
	}
	if err := checkLine(d); err != nil {
		return "", err
	}
	if err := feed.CheckType(d.Type); err != nil {
		return "", err
	}
	r := &request{header: make(http.Header)}
	err := r.lines([]feed.Draft{d}, false)
	return r.body, err
}

// request sends the request and reads its answer.
func (p *part) request(req *http.Request) error {
	resp, err := p.client.http.Do(req)
	if err != nil {
		return lost(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		return ReadProblem(resp)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	if err != nil {
		return lost(err)
	}
	var got StreamResult
	if err := json.Unmarshal(answer, &got); err != nil {
		return violation("the answer to a stream cannot be read: %v", err)
	}
	p.result = got
	return nil
}
