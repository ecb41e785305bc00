package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed/client"
)

// knockPatience is how long servers may take to give a first sign of life.
const knockPatience = 3 * time.Second

// knock returns nil once any of the servers has answered, whatever the answer
// is. It knocks again and again until knockPatience is over.
func knock(ctx context.Context, servers []*client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, knockPatience)
	defer cancel()
	answers := make(chan error, len(servers))
	for _, c := range servers {
		go func() { answers <- knockAt(ctx, c) }()
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

func knockAt(ctx context.Context, c *client.Client) error {
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
			why = fmt.Sprintf("no answer within %v", knockPatience)
		default:
			why = reason(err)
		}
		if sleep(ctx, 200*time.Millisecond) != nil {
			return fmt.Errorf("%s (%s)", c.URL().Redacted(), why)
		}
	}
}
