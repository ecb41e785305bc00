package client

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Outcome is what is known about a publication.
type Outcome int

const (
	Unknown Outcome = iota // it may be stored or not
	Stored                 // it is committed
	Refused                // nothing of it was stored
)

// String returns the outcome in lower case.
func (o Outcome) String() string {
	return [...]string{"unknown", "stored", "refused"}[o]
}

// Result is what became of a publication.
type Result struct {
	Outcome Outcome
	Key     string    // that it was sent with; again with the same one, it is stored once
	IDs     []feed.ID // of the stored events, in the order of the drafts
	// Replayed is set for a publication that was stored before, under the same
	// key. A second attempt of Publish itself may find that, too.
	Replayed bool
}

const (
	// answerPatience is how long the server may take to answer.
	answerPatience = 30 * time.Second
	// lastAnswerPatience is how long it may still take once the context has
	// ended: to cut the request off would leave its outcome unknown.
	lastAnswerPatience = 5 * time.Second
	// keyPatience is how long an outcome may stay unknown: servers remember
	// keys for 24 hours, and a key that is forgotten stores an event twice.
	keyPatience = 23 * time.Hour
	// answerBytes bounds what is read of an answer: a batch of 1,000 events of
	// feeds with the longest names takes a third of it.
	answerBytes = 1 << 20
)

// Publish sends a publication until its outcome is known: across broken
// connections, lost answers and answers that ask to come back later. However
// often it is sent, it is stored once.
//
// The error is nil if the outcome is Stored. A publication that the server
// refused has a [*Problem] as its error. If ctx or Options.Patience ends while
// the outcome is unknown, the error wraps feed.ErrUncertain and the last
// failure; if nothing can have been stored, the outcome is Refused and the error
// is the cause of ctx, or the last failure. After the end of ctx, a request that
// is under way has five seconds left to be answered.
//
// An outcome that stays unknown for 23 hours is returned as that: servers forget
// keys after a day.
func (c *Client) Publish(ctx context.Context, p Publication) (Result, error) {
	if p.Key == "" && len(p.Drafts) > 0 {
		p.Key = rand.Text()
	}
	if err := context.Cause(ctx); err != nil {
		return Result{Outcome: Refused, Key: p.Key}, err
	}
	r, err := c.request(p)
	if err != nil {
		return Result{Outcome: Refused, Key: p.Key}, err
	}
	result, err := c.settle(ctx, r)
	result.Key = p.Key
	return result, err
}

// settle sends r until it is granted or refused.
func (c *Client) settle(ctx context.Context, r *request) (Result, error) {
	began, retry := time.Now(), c.backoff()
	var unknown time.Time // since when the outcome is
	// ended is what an attempt that is the last one leaves behind.
	ended := func(err error) (Result, error) {
		if unknown.IsZero() {
			return Result{Outcome: Refused}, err
		}
		return Result{Outcome: Unknown}, &uncertainError{err}
	}
	for {
		sent := time.Now()
		result, err := c.attempt(ctx, r)
		if result.Outcome == Stored {
			return result, err
		}
		var asked time.Duration
		problem, answered := errors.AsType[*Problem](err)
		if answered {
			if !problem.Temporary() {
				return ended(err)
			}
			asked = problem.RetryAfter
		}
		if result.Outcome == Unknown && unknown.IsZero() {
			unknown = sent
		}
		wait := retry.next(asked)
		if c.options.Patience > 0 && time.Since(began)+wait > c.options.Patience || !unknown.IsZero() && time.Since(unknown)+wait > keyPatience {
			return ended(err)
		}
		c.retrying(err, wait)
		if cause := sleep(ctx, wait); cause != nil {
			if unknown.IsZero() {
				return ended(cause)
			}
			return ended(err)
		}
	}
}

// attempt sends r once, with time for an answer also when ctx ends.
func (c *Client) attempt(ctx context.Context, r *request) (Result, error) {
	answered, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerPatience)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		_ = sleep(answered, lastAnswerPatience) // either way, it is over
		cancel()
	})
	defer stop()
	return c.send(answered, r)
}

// Send makes a single attempt to publish, which ends with ctx. It sends
// Publication.Key as it is, and none if that is empty. The error is a
// [*Problem] if there was an answer. It is for programs that decide by
// themselves what to send again, and where; others want [Client.Publish].
func (c *Client) Send(ctx context.Context, p Publication) (Result, error) {
	r, err := c.request(p)
	if err != nil {
		return Result{Outcome: Refused, Key: p.Key}, err
	}
	result, err := c.send(ctx, r)
	result.Key = p.Key
	return result, err
}

func (c *Client) send(ctx context.Context, r *request) (Result, error) {
	// Without a connection, nothing was sent. A transport that does not report
	// its connections leaves that open.
	wanted, connected := false, false
	trace := &httptrace.ClientTrace{
		GetConn: func(string) { wanted = true },
		GotConn: func(httptrace.GotConnInfo) { connected = true },
	}
	req, err := r.http(httptrace.WithClientTrace(ctx, trace))
	if err != nil {
		return Result{Outcome: Refused}, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if wanted && !connected {
			return Result{Outcome: Refused}, lost(err)
		}
		return Result{}, lost(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
		p := ReadProblem(resp)
		if p.nothingStored() {
			return Result{Outcome: Refused}, p
		}
		return Result{}, p
	}
	// To its end, or the connection cannot carry the next request.
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes))
	if err != nil {
		return Result{}, lost(err)
	}
	result := Result{Outcome: Stored, Replayed: resp.Header.Get("Idempotency-Replayed") == "true"}
	if len(r.feeds) > 0 {
		if result.IDs, err = r.ids(answer); err != nil {
			return result, fmt.Errorf("it was stored, but the answer with its id cannot be read: %w", err)
		}
	}
	return result, nil
}

// nothingStored reports whether a publication with this answer left nothing
// behind. A proxy's 503 or 408 may follow a request that went through.
func (p *Problem) nothingStored() bool {
	return p.Stored == "no" || !p.Temporary() || p.Status == http.StatusTooManyRequests
}

// uncertainError is the end of a publication whose outcome is unknown.
type uncertainError struct{ err error }

func (e *uncertainError) Error() string   { return "its outcome is unknown: " + e.err.Error() }
func (e *uncertainError) Unwrap() []error { return []error{feed.ErrUncertain, e.err} }
