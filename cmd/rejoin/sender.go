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
)

// sender publishes events to one feed, one after another.
type sender struct {
	url       *url.URL
	eventType string
	json      bool
	patience  time.Duration // how long one event is tried; 0 means for ever
	client    *http.Client
	notes     io.Writer

	retry   backoff
	waiting bool // that events have to wait has been noted
}

// publish stores one event and returns its id. It tries again what is surely
// not stored; an error that wraps errUncertain is for what may be.
func (p *sender) publish(ctx context.Context, data string) (uint64, error) {
	begin := time.Now()
	for {
		id, err := p.attempt(ctx, data)
		if err == nil {
			p.retry.reset()
			p.noteReturn()
			return id, nil
		}
		again, _ := errors.AsType[*notStored](err)
		if again == nil {
			return 0, err
		}
		wait := p.retry.next(again.wait)
		if p.patience > 0 && time.Since(begin)+wait > p.patience {
			return 0, again.err
		}
		p.noteWaiting(again.err)
		if sleep(ctx, wait) != nil {
			return 0, errInterrupted
		}
	}
}

// notStored is a failure after which the event is surely not stored, and may
// be if it is sent again.
type notStored struct {
	err  error
	wait time.Duration // what the server asks for
}

func (e *notStored) Error() string { return e.err.Error() }
func (e *notStored) Unwrap() error { return e.err }

func (p *sender) attempt(ctx context.Context, data string) (uint64, error) {
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
	req, err := p.request(httptrace.WithClientTrace(answered, trace), data)
	if err != nil {
		return 0, err
	}
	resp, err := p.client.Do(req)
	switch {
	case err != nil && !connected:
		return 0, &notStored{err: errors.New(reason(err))}
	case err != nil:
		return 0, fmt.Errorf("%w: %s", errUncertain, reason(err))
	}
	defer resp.Body.Close()
	return readAnswer(resp)
}

func (p *sender) request(ctx context.Context, data string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url.String(), strings.NewReader(data))
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
	return req, nil
}

// readAnswer returns the id of the stored event, or what became of it instead.
func readAnswer(resp *http.Response) (uint64, error) {
	if resp.StatusCode == http.StatusCreated {
		var answer struct{ ID uint64 }
		// To its end, or the connection cannot carry the next event.
		body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if err == nil {
			err = json.Unmarshal(body, &answer)
		}
		if err != nil {
			return 0, fmt.Errorf("it was stored, but the answer with its id cannot be read: %w", err)
		}
		return answer.ID, nil
	}
	r := readRefusal(resp)
	switch {
	case r.status == http.StatusTooManyRequests, r.status == http.StatusServiceUnavailable && r.promisesNothingStored():
		return 0, &notStored{err: r, wait: r.wait}
	case r.status >= 500 && r.status != http.StatusNotImplemented:
		return 0, fmt.Errorf("%w: %w", errUncertain, r)
	}
	return 0, r
}

// promisesNothingStored tells a 503 of the server, which says when nothing was
// stored, from one where the store's answer was lost, and from a proxy's, which
// may follow a request that went through.
func (r *refusal) promisesNothingStored() bool {
	return r.problem && strings.Contains(r.detail, "nothing was stored")
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
