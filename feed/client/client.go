package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client talks to one server, or to a proxy in front of several nodes. It is
// safe for concurrent use.
type Client struct {
	base    *url.URL
	http    *http.Client
	options Options
}

// Options tunes a client. The zero value is good.
type Options struct {
	// Token is sent as a bearer token with every request, if it is not empty.
	Token string
	// Transport carries the requests; nil means one made by [NewTransport].
	// It should not limit the time of a request as a whole: streams last, and the
	// client notices by itself when a connection is dead.
	Transport http.RoundTripper
	// Patience bounds how long Publish tries one publication; 0 means for as
	// long as its context lasts.
	Patience time.Duration
	// RetryMin and RetryMax bound the wait between attempts that fail in a row:
	// it doubles from the one to the other, and up to half of it is left out at
	// random. 0 means 1s and 15s.
	RetryMin, RetryMax time.Duration
	// Retrying, if not nil, is called before each wait with the failure of the
	// attempt and the length of the wait. It runs on the goroutine that
	// publishes or follows, and holds it up.
	Retrying func(err error, wait time.Duration)
}

// The ends of sentences about a URL, which is a caller's argument or flag.
var (
	errNoAddress      = errors.New("is not an address such as http://127.0.0.1:8080")
	errAddressHasMore = errors.New("takes neither a query nor a fragment")
)

// New returns a client of the server at baseURL, such as
// http://127.0.0.1:8080. A path in it is kept: a server may be mounted below
// one. The error wraps a reason that reads on from the name of the value, for
// programs that have a name of their own for it.
func New(baseURL string, o Options) (*Client, error) {
	base, err := url.Parse(baseURL)
	switch {
	case err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https":
		err = errNoAddress
	case base.RawQuery != "" || base.Fragment != "":
		err = errAddressHasMore
	}
	if err != nil {
		// The value is not repeated: it may hold a password.
		return nil, fmt.Errorf("the base URL %w", err)
	}
	if o.Transport == nil {
		o.Transport = NewTransport()
	}
	if o.RetryMin <= 0 {
		o.RetryMin = time.Second
	}
	if o.RetryMax <= 0 {
		o.RetryMax = 15 * time.Second
	}
	carrier := o.Transport
	if o.Token != "" {
		carrier = &bearer{o.Transport, o.Token}
	}
	return &Client{base, &http.Client{
		Transport: carrier,
		// A redirect would turn a POST into a GET.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, o}, nil
}

// NewTransport returns a transport that suits publishing and following. It is
// for callers that want to change something about it.
func NewTransport() *http.Transport {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	// Shorter than the idle time of servers and proxies: a connection that they
	// close just as a request leaves on it makes the outcome unknown.
	transport.IdleConnTimeout = 30 * time.Second
	transport.DisableCompression = true // compressing proxies hold events back
	return transport
}

// HTTP returns the HTTP client that sends the requests. It adds the token and
// follows no redirect. It is for calls of the API that this package does not
// make, at the addresses that [Client.URL] returns; [ReadProblem] reads their
// failures.
func (c *Client) HTTP() *http.Client { return c.http }

// URL returns the address below the server's that the elements make, such as
// "v1", "feeds", name. They are escaped. Without any, it is the server's own.
func (c *Client) URL(elements ...string) *url.URL {
	if len(elements) == 0 {
		return new(*c.base) // JoinPath would add a slash
	}
	escaped := make([]string, len(elements))
	for i, e := range elements {
		escaped[i] = url.PathEscape(e)
	}
	return c.base.JoinPath(escaped...)
}

// bearer sends its token with every request.
type bearer struct {
	http.RoundTripper
	token string
}

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context()) // a RoundTripper may not change its request
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.RoundTripper.RoundTrip(r)
}

// CloseIdleConnections passes on what http.Client asks of a transport.
func (b *bearer) CloseIdleConnections() {
	if t, ok := b.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

// backoff is the waiting time between attempts that fail in a row.
type backoff struct {
	least, most time.Duration
	failures    int
}

func (c *Client) backoff() backoff {
	return backoff{least: c.options.RetryMin, most: c.options.RetryMax}
}

// longestAsked bounds the wait that a server can ask for.
const longestAsked = time.Minute

// next returns how long to wait after another failure: between half and all of
// a time that doubles, so that clients cut off together come back apart; longer
// by asked, if the server asked for more.
func (b *backoff) next(asked time.Duration) time.Duration {
	limit := min(b.least<<min(b.failures, 10), b.most)
	b.failures++
	wait := limit/2 + rand.N(limit/2+1)
	if asked > wait {
		return min(asked, longestAsked) + wait/2
	}
	return wait
}

func (b *backoff) reset() { b.failures = 0 }

// retrying tells the caller of a wait.
func (c *Client) retrying(err error, wait time.Duration) {
	if c.options.Retrying != nil {
		c.options.Retrying(err, wait)
	}
}

// sleep waits for d, or until ctx ends: then it returns the cause.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lostError is a failure of the connection, without the method and the address
// that net/http puts in front of it.
type lostError struct{ err error }

func lost(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return &lostError{err}
}

func (e *lostError) Error() string { return strings.TrimPrefix(e.err.Error(), "http: ") }
func (e *lostError) Unwrap() error { return e.err }

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrViolation}, args...)...)
}
