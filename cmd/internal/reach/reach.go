// Package reach finds out whether servers can be reached, and why not.
package reach

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed/client"
)

// patience is how long servers may take to give a first sign of life.
const patience = 3 * time.Second

// Any returns nil once any of the servers has answered, whatever the answer is.
// It asks again and again for three seconds.
func Any(ctx context.Context, servers []*client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answers := make(chan error, len(servers))
	for _, c := range servers {
		go func() { answers <- await(ctx, c) }()
	}
	var silent []string
	for range servers {
		err := <-answers
		if err == nil {
			return nil
		}
		silent = append(silent, err.Error())
	}
	return fmt.Errorf("no server answers at %s", strings.Join(silent, ", nor at "))
}

// await waits until one server has answered, or ctx ends.
func await(ctx context.Context, c *client.Client) error {
	var answered atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotFirstResponseByte: func() { answered.Store(true) }})
	why := "" // the first failure: the last one may be that the time was over
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, c.URL().String(), nil)
		if err != nil {
			return err
		}
		resp, err := c.HTTP().Do(req)
		if err == nil {
			resp.Body.Close()
		}
		if err == nil || answered.Load() {
			return nil
		}
		switch {
		case why != "":
		case ctx.Err() != nil:
			why = fmt.Sprintf("no answer within %v", patience)
		default:
			why = Reason(err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s (%s)", c.URL().Redacted(), why)
		}
	}
}

// Reason shortens a transport error to what went wrong: the method and the
// address are known.
func Reason(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return strings.TrimPrefix(err.Error(), "http: ")
}
