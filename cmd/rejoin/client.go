package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed/client"
)

const defaultURL = "http://127.0.0.1:8080"

// tokenVariable is where all clients have their token from: unlike a flag, the
// environment is not shown to everyone on the machine.
const tokenVariable = "REJOIN_TOKEN"

// newClient returns a client of the server that --url names, with the token of
// the environment. The error is a usage error.
func newClient(server string, o client.Options) (*client.Client, error) {
	o.Token = os.Getenv(tokenVariable)
	c, err := client.New(server, o)
	if err != nil {
		return nil, usageError{fmt.Errorf("--url %w", errors.Unwrap(err))}
	}
	return c, nil
}

// newClients returns clients of several servers, which share what carries their
// requests.
func newClients(servers []string, transport http.RoundTripper) (all []*client.Client, err error) {
	for _, server := range servers {
		c, err := newClient(server, client.Options{Transport: transport})
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// sleep waits for d, or until ctx ends: then it returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reason shortens a transport error to what went wrong: the method and the
// address are known.
func reason(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return strings.TrimPrefix(err.Error(), "http: ")
}
