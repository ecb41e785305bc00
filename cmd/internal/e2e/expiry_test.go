package e2e

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestExpiry lets the tokens of subscribers run out in mid-stream. Each gets
// what there was until then, is told why that was all, over a response that
// ends cleanly, and is turned away when it comes back.
func TestExpiry(t *testing.T) {
	t.Parallel() // it waits for the tokens to run out
	binary := built(t, false)
	p := serve(t, binary, filepath.Join(t.TempDir(), "rejoin.db"), "REJOIN_AUTH_MODE=jwt", "REJOIN_AUTH_JWT_KEY="+tokenSecret, "REJOIN_SUBSCRIBE_RETRY=20ms")
	publisher := makeTokenWith(t, binary, "--publish", "*")
	publishAs(t, p, publisher, "chat", http.StatusCreated)
	asked := time.Now()
	token := makeTokenWith(t, binary, "--subscribe", "chat,news:*", "--for", "2s")
	followers := map[string]*noted{
		"/v1/feeds/chat/events?from=start":                {},
		"/v1/events?from=start&feed=chat&feed=news:today": {},
	}
	for path, f := range followers {
		f.source = &eventSource{url: always(p.url + path), token: token, take: f.take, ended: f.end}
		f.source.start(t)
		f.await(t, "feed.open ,")
	}
	for range 3 {
		publishAs(t, p, publisher, "chat", http.StatusCreated)
	}
	publishAs(t, p, publisher, "news:today", http.StatusCreated)
	for path, f := range followers {
		many := strings.HasPrefix(path, "/v1/events")
		want := "feed.open , 1, 2, 3, 4, feed.expired {\"reason\":\"token\"}, the end <nil>, "
		if many {
			want = "feed.open , chat=1,news:today=0, chat=2,news:today=0, chat=3,news:today=0, chat=4,news:today=0, chat=4,news:today=1, feed.expired {\"reason\":\"token\"}, the end <nil>, "
		}
		f.await(t, "the end ")
		ended := time.Since(asked)
		if got := f.saw(); got != want {
			t.Errorf("%s saw\n%s\nwant\n%s\n%s", path, got, want, p.log)
		}
		// The token's time is in whole seconds.
		if ended < time.Second || ended > 4*time.Second {
			t.Errorf("%s ended %v after the token was asked for, which was good for 2s", path, ended)
		}
		for deadline := time.Now().Add(5 * time.Second); f.source.status() == 0 && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond) // until it has come back
		}
		if f.source.status() != http.StatusUnauthorized {
			t.Errorf("%s: who comes back with the old token gets no 401: %v", path, f.source)
		}
	}
	testForbidden(t, p, binary)
	if log := p.log.String(); strings.Contains(log, token) || strings.Contains(log, publisher) {
		t.Errorf("a token is in the log:\n%s", log)
	}
}

// testForbidden: one feed that the token may not read, and nothing is streamed.
func testForbidden(t *testing.T, p *process, binary string) {
	token := makeTokenWith(t, binary, "--subscribe", "chat,news:*")
	for _, last := range []string{"", "chat=1,secret=0", "secret=0"} {
		s := &eventSource{url: always(p.url + "/v1/events?from=start&feed=chat&feed=secret&feed=news:x"), token: token, from: last, take: func(b rawBlock) { t.Errorf("streamed %+v", b) }}
		s.run(t.Context())
		if s.status() != http.StatusForbidden || !strings.Contains(s.problem, "secret") || strings.Contains(s.problem, "chat") {
			t.Errorf("one feed of three is forbidden, and with the cursor %q the answer is %v", last, s)
		}
	}
	publishAs(t, p, token, "chat", http.StatusForbidden)
}

func publishAs(t *testing.T, p *process, token, name string, want int) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.url+"/v1/feeds/"+name+"/events", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if status, text := do(t, req); status != want {
		t.Fatalf("publish to %s: %d %s, want %d", name, status, text, want)
	}
}
