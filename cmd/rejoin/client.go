package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
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

// newHTTPClient returns the HTTP client of verify. It answers no
// redirect: one would turn a POST into a GET.
func newHTTPClient() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// Shorter than what servers and proxies wait: a connection that they
	// close just as a request leaves on it makes the outcome unknown.
	transport.IdleConnTimeout = 30 * time.Second
	transport.DisableCompression = true // compressing proxies hold events back
	c := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if token := os.Getenv(tokenVariable); token != "" {
		c.Transport = &bearer{transport, token}
	}
	return c
}

// bearer sends its token with every request.
type bearer struct {
	*http.Transport
	token string
}

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context()) // a RoundTripper may not change what it is given
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.Transport.RoundTrip(r)
}

// serverURL checks what --url says. The error is a usage error.
func serverURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		// The value is not repeated: it may hold a password.
		return nil, usageError{errors.New("--url is not an address such as " + defaultURL)}
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, usageError{errors.New("--url takes neither a query nor a fragment")}
	}
	return u, nil
}

// refusal is an answer that is not the one hoped for.
type refusal struct {
	status int
	detail string
	stored string        // "no" if the server promises that nothing was stored
	wait   time.Duration // what Retry-After asks for
}

func (r *refusal) Error() string { return fmt.Sprintf("%s (status %d)", r.detail, r.status) }

// readRefusal reads what an error response says. It does not close it.
func readRefusal(resp *http.Response) *refusal {
	r := &refusal{status: resp.StatusCode, detail: http.StatusText(resp.StatusCode)}
	if seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 16); err == nil {
		r.wait = time.Duration(seconds) * time.Second
	}
	if r.detail == "" {
		r.detail = "unexpected answer"
	}
	if location, err := resp.Location(); err == nil && resp.StatusCode/100 == 3 {
		r.detail = "the server points to " + location.Redacted() + ", which --url should say"
	}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mediaType != "application/problem+json" {
		return r
	}
	var problem struct{ Title, Detail, Stored string }
	if err := json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&problem); err != nil {
		return r
	}
	r.stored = problem.Stored
	for _, words := range []string{problem.Title, problem.Detail} {
		if words != "" {
			r.detail = words
		}
	}
	return r
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
