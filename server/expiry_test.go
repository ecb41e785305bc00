package server_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// brief returns a node that requires tokens, and a token that is valid for two to three
// seconds.
func brief(t *testing.T, wrap func(feed.Store) feed.Store) (n *node, bearer map[string]string) {
	t.Helper()
	o := auth.Options{Key: strings.Repeat("k", 32)}
	verifier, err := auth.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(verifier.Close)
	token, err := auth.Sign(o, auth.Rights{Subscribe: []string{"*"}}, 3*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return start(t, server.Options{Auth: verifier}, wrap), map[string]string{"Authorization": "Bearer " + token, "Accept": "text/event-stream"}
}

// TestTokenExpires: the client gets the reason and its cursor, and the stream ends
// cleanly: it cannot come back with the same token.
func TestTokenExpires(t *testing.T) {
	t.Parallel()
	n, bearer := brief(t, nil)
	if _, err := n.publisher.Publish(t.Context(), feed.Draft{Feed: "chat", Data: "a"}); err != nil {
		t.Fatal(err)
	}
	expired := control("feed.expired", `{"reason":"token"}`, "")
	plain := n.follow(events, bearer)
	filtered := n.follow(events+"?from=start&types=x", bearer)
	many := n.follow("/v1/events?feed=chat,news", bearer)
	plain.want(open("chat", 1, 1, 1), expired)
	filtered.want(open("chat", 0, 1, 1), control("feed.cursor", `{"feed":"chat","cursor":"1"}`, "1"), expired)
	many.want(openMany("chat=1,news=0", at("chat", 1, 1, 1), at("news", 0, 1, 0)), expired)
	for _, f := range []*follower{plain, filtered, many} {
		if rest, err := io.ReadAll(f.r); err != nil || len(rest) > 0 {
			t.Errorf("the stream goes on with %q, or breaks: %v", rest, err)
		}
	}
	if r, _ := n.do("GET", events, bearer, ""); r.StatusCode != 401 {
		t.Errorf("coming back with the same token: %s", r.Status)
	}
}

// TestTokenExpiresWithoutAStore: a stream that waits for the store does not
// outlive its token either.
func TestTokenExpiresWithoutAStore(t *testing.T) {
	t.Parallel()
	n, bearer := brief(t, func(s feed.Store) feed.Store { return away{s} })
	f := n.follow(events, bearer)
	f.want(control("feed.expired", `{"reason":"token"}`, ""))
	if rest, err := io.ReadAll(f.r); err != nil || len(rest) > 0 {
		t.Errorf("the stream goes on with %q, or breaks: %v", rest, err)
	}
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
	for range 20 {
		if f.block() == control("feed.cursor", `{"feed":"chat","cursor":"1"}`, "1") {
			return
		}
	}
	t.Error("20 ephemeral events later, the client has not been told of its cursor")
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
