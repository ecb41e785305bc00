// Package bench measures a server with many subscribers and publishers, and
// checks while it does so that every event reaches every subscriber: once, in
// order.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/reach"
	"github.com/rejoin/rejoin/feed/client"
)

// Mode is what to measure.
type Mode string

// The modes.
const (
	Fanout  Mode = "fanout"  // deliveries: publish at a rate to subscribers
	Publish Mode = "publish" // publishing, without subscribers
	Resume  Mode = "resume"  // the return of subscribers, each with an old cursor
	Idle    Mode = "idle"    // subscribers to which nothing happens
)

// Options are the size of a run, of which a mode looks at some.
type Options struct {
	Client *client.Client // of the server
	Token  string         // empty where none is asked for
	Peer   Peer           // the kind of server
	Prefix string         // of the names of the feeds
	Size   int            // bytes of data an event, from SmallestEvent
	PIDs   []int          // the server's processes, to measure with their children

	Subscribers, Feeds, Publishers int
	Batch                          int     // events a publish
	Rate                           float64 // publishes a second; 0 is as fast as they go
	Backlog                        int     // events that each subscriber of Resume has missed

	Duration, Warmup time.Duration // of publishing, with and without counting
	Hold             time.Duration // for which nothing happens in Idle
	Drain            time.Duration // without a delivery, until those missing count as lost
}

// Run measures in one mode. With a result, the error tells what should not have
// happened meanwhile: something was lost, repeated or out of order, or a publish
// or a stream failed. Without one, it tells why nothing was measured. Progress
// gets a line a second; it may be nil.
func Run(ctx context.Context, mode Mode, o Options, progress io.Writer) (*Result, error) {
	r := newRun(mode, o)
	stop := r.showProgress(progress)
	err := reach.Any(ctx, []*client.Client{o.Client})
	if err == nil {
		err = r.measure(ctx, mode)
	}
	stop()
	switch {
	case err == nil || r.result.measured:
	case ctx.Err() != nil:
		return nil, errors.New("bench: interrupted before anything was measured")
	default:
		return nil, fmt.Errorf("bench: %w", err)
	}
	r.judge(ctx.Err() != nil)
	if err := errors.Join(err, r.result.failure(&r.faults)); err != nil {
		return &r.result, fmt.Errorf("bench: %w", err)
	}
	return &r.result, nil
}

func (r *run) measure(ctx context.Context, mode Mode) error {
	switch mode {
	case Fanout:
		return r.fanout(ctx)
	case Publish:
		return r.publish(ctx)
	case Resume:
		return r.resume(ctx)
	case Idle:
		return r.idle(ctx)
	}
	return fmt.Errorf("there is no mode %q", mode)
}

// wait waits for d, or until ctx ends: then it returns ctx's error.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
