package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// openAPINodes starts a node of each kind, by name.
func openAPINodes(t *testing.T) map[string]*node {
	t.Helper()
	return openAPINodesWith(t, slog.New(slog.DiscardHandler))
}

func openAPINodesWith(t *testing.T, logger *slog.Logger) map[string]*node {
	t.Helper()
	verifier, err := auth.Open(t.Context(), auth.Options{Key: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(verifier.Close)
	options := server.Options{Heartbeat: 30 * time.Millisecond, Auth: verifier, Logger: logger}
	failingAt := func(err error, points ...feedtest.Point) *node {
		return startOn(t, feedtest.NewStore().Through(func(_ context.Context, c feedtest.Call) error {
			if len(points) == 0 || slices.Contains(points, c.At) {
				return err
			}
			return nil
		}), options)
	}
	with := func(change func(*server.Options)) *node {
		o := options
		change(&o)
		return startOn(t, newKeeper(t), o)
	}
	away := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(away.Close)
	nodes := map[string]*node{ // by what is wrong with them
		"":         with(func(*server.Options) {}),
		"slow":     with(func(*server.Options) {}),
		"stopping": with(func(*server.Options) {}),
		"crowded":  with(func(o *server.Options) { o.SubscribersPerAddress = 1 }),
		"limited":  with(func(o *server.Options) { o.PublishesPerSecond = 1 }),
		"full":     with(func(o *server.Options) { o.Subscribers = 1 }),
		"bare":     startOn(t, struct{ feed.Store }{newKeeper(t)}, options),
		"failing":  failingAt(errors.New("the disk burns")),
		"away":     failingAt(feed.ErrUnavailable),
		"lost":     failingAt(feed.ErrUncertain, feedtest.AppendCommitted),
		"keyless":  guarded(t, auth.Options{JWKSURL: away.URL, Logger: options.Logger}, options),
	}
	n := nodes[""]
	n.append("chat", 150)
	n.append("old", 20)
	n.append("done", 3)
	n.closeFeed("done")
	if err := n.hub.Trim(t.Context(), "old", 11); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"crowded", "full"} {
		nodes[name].follow(events, bearer(tokenFor(t, everything))).block()
	}
	header := bearer(tokenFor(t, everything))
	header["Content-Type"] = linesMedia
	nodes["limited"].request("POST", batches, header, strings.Repeat(`{"feed":"m","data":"x"}`+"\n", 500)).Body.Close()
	nodes["stopping"].Drain(t.Context(), 0)
	return nodes
}

var everything = auth.Rights{Subscribe: []string{"*"}, Publish: []string{"*"}, Admin: true}

// authorize gives the request a token. Where the call asks for a short one, it lasts as
// long as short.
func authorize(t *testing.T, r *http.Request, c call, short time.Duration) {
	t.Helper()
	token := tokenFor(t, everything)
	if c.on == "keyless" {
		token = tokenWith(t, "RS256", signingKey(), nil)
	}
	switch c.token {
	case "none":
		return
	case "cookie":
		r.AddCookie(&http.Cookie{Name: "rejoin_token", Value: token})
		return
	case "query":
		r.URL.RawQuery += "&access_token=" + token
		return
	case "bad":
		token += "x"
	case "powerless":
		token = tokenFor(t, auth.Rights{Subscribe: []string{"nothing"}})
	case "short":
		var err error
		if token, err = auth.Sign(auth.Options{Key: secret}, everything, short); err != nil {
			t.Fatal(err)
		}
	}
	r.Header.Set("Authorization", "Bearer "+token)
}

// send makes the call. It returns the answer up to the end that the call names.
func (d document) send(t *testing.T, op operation, c call, n *node) (r *http.Response, body string) {
	t.Helper()
	for short := range longer(t, 2*time.Second) {
		r, body = d.try(t, op, c, n, short)
		if c.token != "short" || r.StatusCode != http.StatusUnauthorized {
			break // the token has not expired before the answer
		}
	}
	return r, body
}

// try makes the call once.
func (d document) try(t *testing.T, op operation, c call, n *node, short time.Duration) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*prompt)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, op.method, n.url+c.path, strings.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	addHeader(r.Header, strings.TrimPrefix(c.header, "\n"))
	authorize(t, r, c, short)
	if c.on == "slow" {
		r.RemoteAddr = "192.0.2.1:1234"
		r.Body = io.NopCloser(iotest.ErrReader(os.ErrDeadlineExceeded))
		w := httptest.NewRecorder()
		n.ServeHTTP(w, r)
		return w.Result(), w.Body.String()
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body strings.Builder
	for buffer := make([]byte, 4096); c.until == "" || !strings.Contains(body.String(), c.until); {
		n, err := resp.Body.Read(buffer)
		body.Write(buffer[:n])
		if err == nil {
			continue
		}
		if c.until != "" && op.method != http.MethodHead || ctx.Err() != nil {
			t.Fatalf("the stream ended with %v: %s", err, body.String())
		}
		break
	}
	return resp, body.String()
}

// TestOpenAPIAnswers makes real requests for every operation, and checks them and
// their answers against the document. Every documented status must occur, and so must
// everything else that is documented.
func TestOpenAPIAnswers(t *testing.T) {
	t.Parallel()
	d := readDocument(t)
	operations := d.operations(t)
	byID := map[string]operation{}
	for _, op := range operations {
		byID[op.id] = op
	}
	nodes := openAPINodes(t)
	seen := sightings{}
	for _, c := range withVariants(t, operations, openAPICalls) {
		op, n := byID[c.operation], nodes[c.on]
		t.Run(fmt.Sprintf("%s %d %s %s%s", c.operation, c.status, c.media, c.on, c.token), func(t *testing.T) {
			d.checkRequest(t, op, c, seen)
			r, body := d.send(t, op, c, n)
			media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
			if r.StatusCode != c.status || media != c.media {
				t.Fatalf("%s %s %s: %s %s %.500s", op.method, c.path, c.header, r.Status, media, body)
			}
			d.checkAnswer(t, op, r, media, body, seen)
		})
	}
	if t.Failed() {
		return
	}
	for _, what := range d.promised(operations) {
		if !seen[what] {
			t.Errorf("documented, but it never came: %s", what)
		}
	}
}
