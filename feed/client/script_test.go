package client

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed/client/clienttest"
)

// The answers and the blocks of scripts, under short names.
var (
	sends, breaks, fails, away = clienttest.Sends, clienttest.Breaks, clienttest.Fails, clienttest.Away
	vanishes, hangs, delivered = clienttest.Vanishes, clienttest.Hangs, clienttest.Delivered
	opened, sent, control      = clienttest.Opened, clienttest.Sent, clienttest.Control
	openedAt, wrapped          = clienttest.OpenedAt, clienttest.Wrapped
	gap, closed                = clienttest.Gap, clienttest.Closed
)

// servePipes serves handler and returns the network and a client that reaches it. It
// must be called in a bubble. Both end with the test.
func servePipes(t *testing.T, handler http.Handler, o Options) (*clienttest.Network, *Client) {
	t.Helper()
	network := clienttest.Serve(t, handler)
	transport := NewTransport()
	transport.DialContext = network.Dial
	t.Cleanup(transport.CloseIdleConnections)
	o.Transport = transport
	c, err := New("http://rejoin.test", o)
	if err != nil {
		t.Fatal(err)
	}
	return network, c
}

// followed is the outcome of a call of Follow.
type followed struct {
	events []Event
	lines  []string // the same, but for KindOpen, as text
	losses []string // the failures before each wait
	err    error
}

// followScript follows against the answers in a bubble of its own.
func followScript(t *testing.T, s Subscription, answers ...http.HandlerFunc) (got followed, script *clienttest.Script) {
	t.Helper()
	script = &clienttest.Script{Answers: answers}
	synctest.Test(t, func(t *testing.T) {
		_, c := servePipes(t, script, Options{Retrying: func(err error, _ time.Duration) { got.losses = append(got.losses, err.Error()) }})
		for e, err := range c.Follow(t.Context(), s) {
			if got.err != nil {
				t.Errorf("after the error comes %v, %v", e, err)
			}
			if got.err = err; err != nil {
				continue
			}
			got.events = append(got.events, e)
			if e.Kind != KindOpen {
				got.lines = append(got.lines, line(e))
			}
		}
	})
	return got, script
}

// line shows an event and the cursor behind it.
func line(e Event) string {
	switch e.Kind {
	case KindEvent:
		return fmt.Sprintf("%s %d %q at %s", e.Feed, e.ID, e.Type+":"+e.Data, e.Cursor)
	case KindEphemeral:
		return fmt.Sprintf("%s %q at %s", e.Feed, e.Type+":"+e.Data, e.Cursor)
	case KindGap:
		return fmt.Sprintf("gap of %s, %s: after %d, resumes %d at %s", e.Feed, e.Gap.Reason, e.Gap.After, e.Gap.Resumes, e.Cursor)
	}
	return fmt.Sprintf("%v at %s", e, e.Cursor)
}

var (
	chat = Subscription{Feeds: []string{"chat"}, From: "start"}
	both = Subscription{Feeds: []string{"chat", "news"}, From: "start"}
)

func (s Subscription) at(cursor string) Subscription {
	s.Cursor = cursor
	return s
}

func (s Subscription) of(types ...string) Subscription {
	s.Types = types
	return s
}
