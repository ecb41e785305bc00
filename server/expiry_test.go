package server_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// brief returns a node that requires tokens.
func brief(t *testing.T, wrap func(feed.Store) feed.Store) *node {
	t.Helper()
	verifier, err := auth.Open(t.Context(), auth.Options{Key: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(verifier.Close)
	return start(t, server.Options{Auth: verifier}, wrap)
}

// bearerFor returns the header with a token that is valid for about that long: exp is in
// whole seconds.
func bearerFor(t *testing.T, lifetime time.Duration) map[string]string {
	t.Helper()
	token, err := auth.Sign(auth.Options{Key: secret}, everything, lifetime)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"Authorization": "Bearer " + token, "Accept": "text/event-stream"}
}

// wantUntilExpiry opens the streams, each with a token of its own that soon expires, and
// demands all of their blocks and a clean end. A stream whose token expired before it had
// them is opened again, with one that lasts longer. It returns a token that has expired.
func (n *node) wantUntilExpiry(streams map[string][]string) (bearer map[string]string) {
	n.t.Helper()
	expired := control("feed.expired", `{"reason":"token"}`, "")
	for lifetime := range longer(n.t, 3*time.Second) {
		open := make(map[string]*follower)
		for path := range streams {
			bearer = bearerFor(n.t, lifetime)
			resp := n.request("GET", path, bearer, "")
			n.t.Cleanup(func() { resp.Body.Close() })
			if resp.StatusCode == http.StatusOK {
				open[path] = &follower{n.t, resp.Body, bufio.NewReader(resp.Body)}
			} else if resp.StatusCode != http.StatusUnauthorized {
				n.t.Fatalf("%s: %s", path, resp.Status)
			}
		}
		for path, f := range open {
			var got []string
			block, err := f.next()
			for ; err == nil; block, err = f.next() {
				got = append(got, block)
			}
			if err != io.EOF || block != "" {
				n.t.Errorf("%s breaks in %q: %v", path, block, err)
			}
			want := streams[path]
			shown, lacksEnd := got, slices.Contains(want, expired)
			if last := len(got) - 1; lacksEnd && last >= 0 && got[last] == expired {
				shown, lacksEnd = got[:last], false
			}
			if !lacksEnd && len(got) < len(want) && slices.Equal(shown, want[:len(shown)]) {
				continue // it has expired too early
			}
			if diff := cmp.Diff(want, got); diff != "" {
				n.t.Errorf("%s: %s", path, diff)
			}
			delete(streams, path)
		}
		if len(streams) == 0 {
			break
		}
	}
	return bearer
}

// TestTokenExpires: the client gets the reason and its cursor, and the stream ends
// cleanly: it cannot come back with the same token.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	n := brief(t, nil)
	n.put("chat", "a")
	expired := control("feed.expired", `{"reason":"token"}`, "")
	bearer := n.wantUntilExpiry(map[string][]string{
		events:                         {open("chat", 1, 1, 1), expired},
		events + "?from=start&types=x": {open("chat", 0, 1, 1), control("feed.cursor", `{"feed":"chat","cursor":"1"}`, "1"), expired},
		"/v1/events?feed=chat,news":    {openMany("chat=1,news=0", at("chat", 1, 1, 1), at("news", 0, 1, 0)), expired},
	})
	if r, _ := n.do("GET", events, bearer, ""); r.StatusCode != 401 {
		t.Errorf("coming back with the same token: %s", r.Status)
	}
}

// TestTokenExpiresWithoutAStore: a stream that waits for the store does not
// outlive its token either.
func TestTokenExpiresWithoutAStore(t *testing.T) {
	t.Parallel()
	n := brief(t, func(s feed.Store) feed.Store { return away{s} })
	n.wantUntilExpiry(map[string][]string{events: {control("feed.expired", `{"reason":"token"}`, "")}})
}

// away is a store that cannot be reached.
type away struct{ feed.Store }

func (away) Bounds(context.Context, []string) ([]feed.Bounds, error) {
	return nil, feed.ErrUnavailable
}

// TestHiddenCursorUnderEphemeralEvents: events that are shown do not delay the
// feed.cursor for an event that a filter hides.
func TestHiddenCursorUnderEphemeralEvents(t *testing.T) {
	t.Parallel()
	n := start(t, server.Options{Heartbeat: 300 * time.Millisecond}, nil)
	f := n.follow(events+"?types=note", nil)
	f.want(open("chat", 0, 1, 0))
	n.publish("chat", "hidden", 1)
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(50 * time.Millisecond): // more often than keep-alives are due
				err := n.publisher.PublishEphemeral(t.Context(), feed.Draft{Feed: "chat", Type: "note", Data: "x"})
				if err != nil && !errors.Is(err, feed.ErrStopped) && t.Context().Err() == nil {
					t.Error(err)
				}
			}
		}
	}()
	for range 1000 { // which take a minute; the cursor is due after a third of a second
		if f.block() == control("feed.cursor", `{"feed":"chat","cursor":"1"}`, "1") {
			return
		}
	}
	t.Error("1000 ephemeral events later, the client has not been told of its cursor")
}

// TestTokenForCenturies: a token that is valid for longer than a time.Duration can
// express does not end a stream.
func TestTokenForCenturies(t *testing.T) {
	n := guarded(t, auth.Options{Key: secret}, server.Options{MaxAge: time.Hour})
	unaged := guarded(t, auth.Options{Key: secret}, server.Options{})
	for _, year := range []int{2100, 2300, 2400, 9999} {
		token := tokenWith(t, "HS256", []byte(secret), func(claims jwt.MapClaims) {
			claims["exp"] = time.Date(year, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
			claims["rejoin"] = auth.Rights{Subscribe: []string{"*"}, Publish: []string{"*"}}
		})
		for _, n := range []*node{n, unaged} {
			f := n.follow(events, bearer(token))
			f.block()
			if _, err := n.publisher.Publish(t.Context(), feed.Draft{Feed: "chat", Data: "x"}); err != nil {
				t.Fatal(err)
			}
			if got := f.block(); !strings.HasPrefix(got, "data: x\n") {
				t.Errorf("%d: got %q", year, got)
			}
			if r, body := n.head("GET", events+"?wait=1ms", map[string]string{"Authorization": "Bearer " + token, "Accept": "application/json"}, ""); r.StatusCode != 200 {
				t.Errorf("%d: a page: %s %s", year, r.Status, body)
			}
		}
	}
	r, body := n.do("GET", events, bearer(tokenWith(t, "HS256", []byte(secret), func(claims jwt.MapClaims) {
		claims["exp"] = time.Now().Add(time.Hour).UnixMilli()
	})), "")
	wantProblem(t, r, body, http.StatusUnauthorized, "its exp is too far away to be a time in seconds; it may be in milliseconds")
}
