package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"time"
)

const (
	// answerPatience is how long the server may take to answer.
	answerPatience = 30 * time.Second
	// lastAnswerPatience is how long it may still take after an interrupt:
	// to cut the request off would leave its outcome unknown.
	lastAnswerPatience = 5 * time.Second
	// keyPatience is how long an outcome may stay unknown: servers remember
	// keys for 24 hours, and a key that is forgotten stores an event twice.
	keyPatience = 23 * time.Hour
)

// sender publishes events to one feed, one after another.
type sender struct {
	url       *url.URL // of the feed's events
	eventType string
	json      bool
	patience  time.Duration // how long one event is tried; 0 means for ever
	client    *http.Client
	notes     io.Writer

	retry   backoff
	waiting bool // that events have to wait has been noted
}

// event is one event to publish.
type event struct {
	data  string
	key   string // what makes it one that can be sent again
	close bool   // closes the feed
}

// The ways in which nothing comes of it.
var (
	errUncertain   = errors.New("its outcome is unknown")
	errInterrupted = errors.New("interrupted; nothing was done")
)

// publish stores one event and returns its id. It sends it until it is known
// to be stored, or refused; an error that wraps errUncertain is for an outcome
// that did not become known in time.
func (p *sender) publish(ctx context.Context, e event) (uint64, error) {
	answer, err := p.insist(ctx, func(ctx context.Context) (*http.Request, error) { return p.request(ctx, e) })
	if errors.Is(err, errUncertain) {
		return 0, fmt.Errorf("%w; sent with --key %s, it is stored once in any case", err, e.key)
	}
	if err != nil {
		return 0, err
	}
	var stored struct{ ID uint64 }
	if err := json.Unmarshal(answer, &stored); err != nil {
		return 0, fmt.Errorf("it was stored, but the answer with its id cannot be read: %w", err)
	}
	return stored.ID, nil
}

// closeFeed closes the feed for good, unless ctx has ended.
func (p *sender) closeFeed(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("publish: close the feed: %w", errInterrupted)
	}
	to := p.url.JoinPath("..", "close").String()
	if _, err := p.insist(ctx, func(ctx context.Context) (*http.Request, error) {
		return http.NewRequestWithContext(ctx, http.MethodPost, to, nil)
	}); err != nil {
		return fmt.Errorf("publish: close the feed: %w", err)
	}
	return nil
}

// insist sends a request that can be repeated until it is granted or refused,
// and returns the answer.
func (p *sender) insist(ctx context.Context, request func(context.Context) (*http.Request, error)) ([]byte, error) {
	begin := time.Now()
	var unknown time.Time // since when the outcome is
	for {
		sent := time.Now()
		answer, err := p.attempt(ctx, request)
		if err == nil {
			p.retry.reset()
			p.noteReturn()
			return answer, nil
		}
		again, _ := errors.AsType[*tryAgain](err)
		if again != nil && again.unknown && unknown.IsZero() {
			unknown = sent
		}
		if again == nil {
			return nil, uncertain(unknown, err)
		}
		wait := p.retry.next(again.wait)
		if p.patience > 0 && time.Since(begin)+wait > p.patience || !unknown.IsZero() && time.Since(unknown)+wait > keyPatience {
			return nil, uncertain(unknown, again.err)
		}
		p.noteWaiting(again.err)
		if sleep(ctx, wait) != nil {
			if unknown.IsZero() {
				return nil, errInterrupted
			}
			return nil, uncertain(unknown, again.err)
		}
	}
}

// uncertain returns err as what ends an attempt, after one whose outcome is
// unknown or not.
func uncertain(unknown time.Time, err error) error {
	if unknown.IsZero() {
		return err
	}
	return fmt.Errorf("%w: %w", errUncertain, err)
}

// tryAgain is a failure after which the same request may be granted.
type tryAgain struct {
	err     error
	unknown bool          // whether this one was, nobody can tell
	wait    time.Duration // what the server asks for
}

func (e *tryAgain) Error() string { return e.err.Error() }
func (e *tryAgain) Unwrap() error { return e.err }

func (p *sender) attempt(ctx context.Context, request func(context.Context) (*http.Request, error)) ([]byte, error) {
	answered, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerPatience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		_ = sleep(answered, lastAnswerPatience) // either way, it is over
		cancel()
	})
	defer stop()

	// Without a connection, nothing was sent. With one, who knows.
	connected := false
	trace := &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected = true }}
	req, err := request(httptrace.WithClientTrace(answered, trace))
	if err != nil {
		return nil, err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, &tryAgain{err: errors.New(reason(err)), unknown: connected}
	}
	defer resp.Body.Close()
	return readAnswer(resp)
}

func (p *sender) request(ctx context.Context, e event) (*http.Request, error) {
	to := *p.url
	if e.close {
		to.RawQuery = "close=true"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.String(), strings.NewReader(e.data))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	if p.json {
		req.Header.Set("Content-Type", "application/json")
	}
	if p.eventType != "" {
		req.Header.Set("Event-Type", p.eventType)
	}
	req.Header.Set("Idempotency-Key", e.key)
	return req, nil
}

// readAnswer returns the answer of a request that was granted, or what became
// of it instead.
func readAnswer(resp *http.Response) ([]byte, error) {
	if resp.StatusCode == http.StatusCreated || resp.StatusCode == http.StatusNoContent {
		// To its end, or the connection cannot carry the next event.
		answer, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if err != nil {
			return nil, &tryAgain{err: errors.New(reason(err)), unknown: true}
		}
		return answer, nil
	}
	r := readRefusal(resp)
	switch {
	case r.status == http.StatusTooManyRequests, r.status == http.StatusRequestTimeout:
		return nil, &tryAgain{err: r, wait: r.wait}
	case r.status >= 500 && r.status != http.StatusNotImplemented:
		// A proxy's 503 may follow a request that went through.
		return nil, &tryAgain{err: r, unknown: r.stored != "no", wait: r.wait}
	}
	return nil, r
}

// noteWaiting and noteReturn say once that events wait, and once that they no
// longer do.
func (p *sender) noteWaiting(err error) {
	if !p.waiting {
		p.note("cannot publish yet (%s), trying again", err)
	}
	p.waiting = true
}

func (p *sender) noteReturn() {
	if p.waiting {
		p.note("publishing again")
	}
	p.waiting = false
}

func (p *sender) note(format string, args ...any) {
	// Notes are a courtesy: publishing goes on without a reader of them.
	_, _ = fmt.Fprintf(p.notes, "rejoin: "+format+"\n", args...)
}
