package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin/rejoin/server/auth"
)

// reloaded is a server with a configuration file that Kubernetes could have put there:
// a link to a directory that is swapped as a whole.
type reloaded struct {
	t    *testing.T
	dir  string
	swap int
	srv  *process
}

func newReloaded(t *testing.T, content string) *reloaded {
	t.Helper()
	r := &reloaded{t: t, dir: t.TempDir()}
	r.mount(content)
	if err := os.Symlink(filepath.Join("..data", "config.yaml"), r.file()); err != nil {
		t.Fatal(err)
	}
	r.srv = serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"),
		"REJOIN_CONFIG="+r.file(), "REJOIN_LIMITS_BATCH_EVENTS=5", "REJOIN_DRAIN_WINDOW=10ms")
	r.srv.awaitReady()
	return r
}

func (r *reloaded) file() string { return filepath.Join(r.dir, "config.yaml") }

// mount swaps the whole directory for one with this content.
func (r *reloaded) mount(content string) {
	r.t.Helper()
	r.swap++
	version := fmt.Sprintf("..%d", r.swap)
	link := filepath.Join(r.dir, "..new")
	for _, step := range []func() error{
		func() error { return os.Mkdir(filepath.Join(r.dir, version), 0o700) },
		func() error {
			return os.WriteFile(filepath.Join(r.dir, version, "config.yaml"), []byte(content), 0o600)
		},
		func() error { return os.Symlink(version, link) },
		func() error { return os.Rename(link, filepath.Join(r.dir, "..data")) },
	} {
		if err := step(); err != nil {
			r.t.Fatal(err)
		}
	}
}

// awaitLog waits for a line of the log that has all of these parts.
func (r *reloaded) awaitLog(parts ...string) {
	r.t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		grown := r.srv.log.grown()
		for _, line := range r.srv.log.lines() {
			has := true
			for _, part := range parts {
				has = has && strings.Contains(line, part)
			}
			if has {
				return
			}
		}
		select {
		case <-grown:
		case <-r.srv.done:
			r.t.Fatalf("the process ended with %v:\n%s", r.srv.err, r.srv.log)
		case <-deadline:
			r.t.Fatalf("%q is not logged:\n%s", parts, r.srv.log)
		}
	}
}

// ask sends a request and returns the status and the header of the answer.
func (r *reloaded) ask(method, path, token, body string, header ...string) (int, http.Header) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.srv.url+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header
}

func (r *reloaded) demand(what string, status, want int) {
	r.t.Helper()
	if status != want {
		r.t.Errorf("%s: %d, want %d", what, status, want)
	}
}

func reloadToken(t *testing.T, secret string) string {
	t.Helper()
	token, err := auth.Sign(auth.Options{Key: secret}, auth.Rights{Subscribe: []string{"*"}, Publish: []string{"*"}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// heldStreams are streams that must not end.
type heldStreams struct {
	sources []*eventSource
	last    []atomic.Int64 // the newest id of each
	wrong   atomic.Int64   // events that were not the next
}

func holdStreams(t *testing.T, url, token string, n int) *heldStreams {
	t.Helper()
	h := &heldStreams{last: make([]atomic.Int64, n)}
	var opened sync.WaitGroup
	for i := range n {
		opened.Add(1)
		open := sync.OnceFunc(opened.Done)
		s := &eventSource{url: always(url + "/v1/feeds/chat/events?from=start"), token: token, take: func(b rawBlock) {
			if open(); b.kind != "" {
				return
			}
			var id int64
			if _, err := fmt.Sscan(b.id, &id); err != nil || !h.last[i].CompareAndSwap(id-1, id) {
				h.wrong.Add(1)
			}
		}}
		s.start(t)
		h.sources = append(h.sources, s)
	}
	opened.Wait()
	return h
}

// judge demands that each stream is the one that was opened first, and has all events.
func (h *heldStreams) judge(t *testing.T, last int64) {
	t.Helper()
	for i, s := range h.sources {
		for deadline := time.Now().Add(30 * time.Second); h.last[i].Load() < last && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond) // until what was published last has arrived
		}
		if s.mu.Lock(); s.opened != 1 || len(s.endings) > 0 || h.last[i].Load() != last {
			t.Errorf("stream %d: %d connections, %d ended, the last event is %d, want %d", i, s.opened, len(s.endings), h.last[i].Load(), last)
		}
		s.mu.Unlock()
	}
	if wrong := h.wrong.Load(); wrong > 0 {
		t.Errorf("%d events were not the next", wrong)
	}
}

// TestReload: with a thousand streams open and events on their way, a server takes over
// new limits, keys, origins and levels. No stream ends and no event is lost. A file with
// faults changes nothing.
func TestReload(t *testing.T) {
	t.Parallel()
	const streams = 1000
	const oldSecret, newSecret = "the old secret has thirty-two bytes or more", "the new secret has thirty-two bytes or more"
	oldToken, newToken := reloadToken(t, oldSecret), reloadToken(t, newSecret)
	r := newReloaded(t, "auth: {mode: jwt, jwt: {key: "+oldSecret+"}}\nlimits: {batch_events: 3}\n")
	held := holdStreams(t, r.srv.url, oldToken, streams)

	var token atomic.Pointer[string]
	token.Store(&oldToken)
	stop, published := make(chan struct{}), make(chan int64)
	go func() {
		n := int64(0)
		for {
			select {
			case <-stop:
				published <- n
				return
			case <-time.After(100 * time.Millisecond):
			}
			// A request that is on its way when the keys change is refused by the new ones.
			if status, _ := r.ask("POST", "/v1/feeds/chat/events", *token.Load(), "x"); status == http.StatusCreated {
				n++
			}
		}
	}()

	r.mount(fmt.Sprintf(`auth: {mode: jwt, jwt: {key: %s}}
cors: {origins: [https://app.example]}
log: {level: debug}
limits: {subscribers: %d, event_bytes: 100, batch_events: 4, batch_bytes: 1000}
drain: {window: 20s}
subscribe: {heartbeat: 14s}
`, newSecret, streams))
	r.srv.signal(syscall.SIGHUP)
	r.awaitLog("the configuration has been reloaded", "limits.event_bytes, limits.batch_bytes, limits.subscribers, auth.jwt.key, cors.origins, log.level")
	token.Store(&newToken)
	r.awaitLog("need a restart", "subscribe.heartbeat, limits.batch_events (overridden by REJOIN_LIMITS_BATCH_EVENTS), drain.window (overridden by REJOIN_DRAIN_WINDOW)")
	r.demandNew(oldToken, newToken)
	if log := r.srv.log.String(); strings.Contains(log, oldSecret) || strings.Contains(log, newSecret) {
		t.Error("the log has a secret")
	}

	r.mount("auth: {mode: jwt, jwt: {key: short}}\nlimits:\n  subscribers: many\n  batch_bytes: 0\nsubscribed: {}\n")
	r.srv.signal(syscall.SIGHUP)
	for _, fault := range []string{
		":1: auth.jwt.key: ", `:3: limits.subscribers: \"many\"`, ":4: limits.batch_bytes: ",
	} {
		r.awaitLog("has a fault", r.file()+fault)
	}
	r.demandNew(oldToken, newToken)

	// Nobody sends a signal.
	swapped := time.Now()
	r.mount("auth: {mode: jwt, jwt: {key: " + newSecret + "}}\nlimits: {event_bytes: 100}\nlog: {level: debug}\n")
	r.awaitLog("the configuration has been reloaded", `"changed":"limits.batch_bytes, limits.subscribers, cors.origins"`)
	t.Logf("a swapped link was seen after %v", time.Since(swapped).Round(time.Millisecond))
	status, _ := r.ask("POST", "/v1/feeds/other/events", newToken, "["+strings.Repeat(`1,`, 48)+"1]", "Content-Type", "application/json")
	r.demand("a publish after the swap", status, http.StatusCreated)
	close(stop)
	held.judge(t, <-published)
}

// demandNew demands that the second of the two keys counts, and the limits with it.
func (r *reloaded) demandNew(oldToken, newToken string) {
	r.t.Helper()
	const other = "/v1/feeds/other/events"
	status, _ := r.ask("POST", other, oldToken, "x")
	r.demand("a token with the old key", status, http.StatusUnauthorized)
	status, header := r.ask("POST", other, newToken, "x", "Origin", "https://app.example")
	r.demand("a token with the new key", status, http.StatusCreated)
	if got := header.Get("Access-Control-Allow-Origin"); got != "https://app.example" {
		r.t.Errorf("a page of the new origin is allowed %q", got)
	}
	status, _ = r.ask("POST", other, newToken, strings.Repeat("x", 101))
	r.demand("an event of 101 bytes", status, http.StatusRequestEntityTooLarge)
	line, _ := json.Marshal(map[string]string{"data": strings.Repeat("x", 90)})
	status, _ = r.ask("POST", other, newToken, strings.Repeat(string(line)+"\n", 5), "Content-Type", "application/x-ndjson")
	r.demand("a batch of 5", status, http.StatusCreated)
	status, _ = r.ask("GET", other, newToken, "", "Accept", "application/x-ndjson")
	r.demand("one stream more than the limit", status, http.StatusServiceUnavailable)
	r.awaitLog(`"level":"DEBUG"`, other)
}
