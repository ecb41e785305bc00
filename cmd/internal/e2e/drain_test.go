package e2e

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// askOnce asks over a connection of its own, as a load balancer does, and returns the
// answer and how its body ended. The status is 0 if there is no answer.
func askOnce(t *testing.T, method, url, accept string) (status int, body string, end error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(strings.Repeat("x", len(method)-len("GET"))))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// openUntil opens a stream, and returns a function that waits for its end.
func openUntil(t *testing.T, url string) (end func() error, err error) {
	t.Helper()
	resp, err := http.Get(url + "/v1/feeds/chat/events")
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { resp.Body.Close() })
	r := bufio.NewReader(resp.Body)
	for line := ""; line != "event: feed.open\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			return nil, err
		}
	}
	return func() error {
		_, err := io.Copy(io.Discard, r)
		return err
	}, nil
}

// drained is what a node answers while it drains.
type drained struct {
	ready, publish int
	body           string // of /readyz
}

func (d drained) demand(t *testing.T, when string) {
	t.Helper()
	if d.ready != http.StatusServiceUnavailable || !strings.Contains(d.body, `"draining":true`) {
		t.Errorf("%s, /readyz answers %d %s", when, d.ready, d.body)
	}
	if d.publish != http.StatusCreated {
		t.Errorf("%s, a publish gets %d", when, d.publish)
	}
}

func askDrained(t *testing.T, url string) (d drained) {
	t.Helper()
	d.ready, d.body, _ = askOnce(t, "GET", url+"/readyz", "")
	d.publish, _, _ = askOnce(t, "POST", url+"/v1/feeds/chat/events", "")
	return d
}

// TestDrainIsSeen: after SIGTERM, a probe sees that the node is draining before any
// client is turned away, for the whole delay, and as long as streams are being broken
// off.
func TestDrainIsSeen(t *testing.T) {
	t.Parallel()
	delay := 400 * time.Millisecond
	for !testDrainIsSeen(t, delay) {
		if delay *= 2; delay > time.Minute {
			t.Fatal("the delay is over too soon, however long it is")
		}
	}
}

// testDrainIsSeen reports whether the machine was quick enough to ask during the delay
// and the window what it wants to know.
func testDrainIsSeen(t *testing.T, delay time.Duration) (inTime bool) {
	t.Helper()
	window := 5 * delay / 2
	srv := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"),
		"REJOIN_DRAIN_DELAY="+delay.String(), "REJOIN_DRAIN_WINDOW="+window.String())
	first, err := openUntil(t, srv.url)
	if err != nil {
		t.Fatal(err)
	}
	signaled := time.Now()
	srv.signal(syscall.SIGTERM)
	srv.logged("stopping")
	before := askDrained(t, srv.url)
	second, err := openUntil(t, srv.url)
	if time.Since(signaled) >= delay {
		srv.kill()
		return false
	}
	before.demand(t, "during the delay")
	if err != nil {
		t.Fatalf("during the delay, a stream does not open: %v", err)
	}
	if err := first(); !errors.Is(err, io.ErrUnexpectedEOF) || time.Since(signaled) < delay {
		t.Errorf("%v after SIGTERM, the first stream ended with %v", time.Since(signaled), err)
	}
	// The other one has half of the window.
	_, body, end := askOnce(t, "GET", srv.url+"/v1/feeds/chat/events", "text/event-stream")
	meanwhile := askDrained(t, srv.url)
	if time.Since(signaled) >= delay+window/2 {
		srv.kill()
		return false
	}
	if !errors.Is(end, io.ErrUnexpectedEOF) || !regexp.MustCompile(`^retry: [123]\d{3}\n$`).MatchString(body) {
		t.Errorf("during the window, a new stream gets %q, and ends with %v", body, end)
	}
	meanwhile.demand(t, "during the window")
	if err := second(); !errors.Is(err, io.ErrUnexpectedEOF) || time.Since(signaled) < delay+window/2 {
		t.Errorf("%v after SIGTERM, the second stream ended with %v", time.Since(signaled), err)
	}
	srv.logged("stopped")
	if err := srv.wait(); err != nil {
		t.Error(err)
	}
	return true
}

// TestDrainDelayOfNobody: the delay is for whoever sends traffic, which knows nothing
// of what is open here.
func TestDrainDelayOfNobody(t *testing.T) {
	t.Parallel()
	for delay := 300 * time.Millisecond; ; delay *= 2 {
		srv := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"),
			"REJOIN_DRAIN_DELAY="+delay.String(), "REJOIN_DRAIN_WINDOW=10ms")
		signaled := time.Now()
		srv.signal(syscall.SIGTERM)
		srv.logged("stopping")
		before := askDrained(t, srv.url)
		late := time.Since(signaled) >= delay
		srv.logged("stopped")
		if took := time.Since(signaled); took < delay {
			t.Errorf("it stopped after %v", took)
		}
		if err := srv.wait(); err != nil {
			t.Error(err)
		}
		if !late || delay > time.Minute {
			before.demand(t, "during the delay")
			return
		}
	}
}
