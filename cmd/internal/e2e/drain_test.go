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
// answer and how its body ended.
func askOnce(t *testing.T, method, url, accept string) (resp *http.Response, body string, end error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(strings.Repeat("x", len(method)-len("GET"))))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", accept)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	if resp, err = transport.RoundTrip(r); err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

// demandDraining demands that /readyz says that the node is draining.
func demandDraining(t *testing.T, url, when string) {
	t.Helper()
	resp, body, _ := askOnce(t, "GET", url+"/readyz", "")
	if resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, `"draining":true`) {
		t.Errorf("%s, /readyz answers %s %s", when, resp.Status, body)
	}
}

// openUntil opens a stream, and returns a function that waits for its end.
func openUntil(t *testing.T, url string) (end func() error) {
	t.Helper()
	resp, err := http.Get(url + "/v1/feeds/chat/events")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	r := bufio.NewReader(resp.Body)
	for line := ""; line != "event: feed.open\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	return func() error {
		_, err := io.Copy(io.Discard, r)
		return err
	}
}

// TestDrainIsSeen: after SIGTERM, a probe sees that the node is draining before any
// client is turned away, for the whole delay, and as long as streams are being broken
// off.
func TestDrainIsSeen(t *testing.T) {
	const delay, window = 400 * time.Millisecond, time.Second
	srv := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"),
		"REJOIN_DRAIN_DELAY="+delay.String(), "REJOIN_DRAIN_WINDOW="+window.String())
	first := openUntil(t, srv.url)
	srv.signal(syscall.SIGTERM)
	signaled := time.Now()
	srv.logged("stopping")
	demandDraining(t, srv.url, "during the delay")
	second := openUntil(t, srv.url)
	if resp, body, _ := askOnce(t, "POST", srv.url+"/v1/feeds/chat/events", ""); resp.StatusCode != http.StatusCreated {
		t.Errorf("during the delay, a publish gets %s %s", resp.Status, body)
	}
	if err := first(); !errors.Is(err, io.ErrUnexpectedEOF) || time.Since(signaled) < delay {
		t.Errorf("%v after SIGTERM, the first stream ended with %v", time.Since(signaled), err)
	}
	// The other one has half of the window.
	demandDraining(t, srv.url, "during the window")
	_, body, end := askOnce(t, "GET", srv.url+"/v1/feeds/chat/events", "text/event-stream")
	if !errors.Is(end, io.ErrUnexpectedEOF) || !regexp.MustCompile(`^retry: [123]\d{3}\n$`).MatchString(body) {
		t.Errorf("during the window, a new stream gets %q, and ends with %v", body, end)
	}
	if resp, body, _ := askOnce(t, "POST", srv.url+"/v1/feeds/chat/events", ""); resp.StatusCode != http.StatusCreated {
		t.Errorf("during the window, a publish gets %s %s", resp.Status, body)
	}
	if err := second(); !errors.Is(err, io.ErrUnexpectedEOF) || time.Since(signaled) < delay+window/2 {
		t.Errorf("%v after SIGTERM, the second stream ended with %v", time.Since(signaled), err)
	}
	srv.logged("stopped")
	if err := srv.wait(); err != nil {
		t.Error(err)
	}
}

// TestDrainDelayOfNobody: the delay is for whoever sends traffic, which knows nothing
// of what is open here.
func TestDrainDelayOfNobody(t *testing.T) {
	const delay = 300 * time.Millisecond
	srv := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"),
		"REJOIN_DRAIN_DELAY="+delay.String(), "REJOIN_DRAIN_WINDOW=10ms")
	srv.signal(syscall.SIGTERM)
	signaled := time.Now()
	srv.logged("stopping")
	demandDraining(t, srv.url, "during the delay")
	srv.logged("stopped")
	if took := time.Since(signaled); took < delay {
		t.Errorf("it stopped after %v", took)
	}
	if err := srv.wait(); err != nil {
		t.Error(err)
	}
}
