package e2e

import (
	"fmt"
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
	lifetime, token := 2*time.Second, ""
	for run := 1; ; run++ {
		ends := time.Now().Add(lifetime - time.Second) // at the earliest: a token has whole seconds
		token = makeTokenWith(t, binary, "--subscribe", "*", "--for", lifetime.String())
		if testExpiry(t, p, run, publisher, token, ends) {
			break
		}
		if lifetime *= 2; lifetime > time.Minute {
			t.Fatal("the token has run out before all is set up, however long that takes")
		}
	}
	testForbidden(t, p, binary)
	if log := p.log.String(); strings.Contains(log, token) || strings.Contains(log, publisher) {
		t.Errorf("a token is in the log:\n%s", log)
	}
}

// testExpiry follows feeds with a token that does not run out before ends. It reports
// whether the machine was quick enough to publish to them until then.
func testExpiry(t *testing.T, p *process, run int, publisher, token string, ends time.Time) (inTime bool) {
	t.Helper()
	chat, news := fmt.Sprint("chat-", run), fmt.Sprint("news:", run)
	publishAs(t, p, publisher, chat, http.StatusCreated)
	one, many := &noted{}, &noted{}
	for path, f := range map[string]*noted{
		"/v1/feeds/" + chat + "/events?from=start":             one,
		"/v1/events?from=start&feed=" + chat + "&feed=" + news: many,
	} {
		f.source = &eventSource{url: always(p.url + path), token: token, take: f.take, ended: f.end}
		f.source.start(t)
		// It is turned away if it comes too late.
		f.until(t, "an answer", func() bool { return strings.Contains(f.saw(), "feed.open ,") || f.source.status() != 0 })
	}
	for range 3 {
		publishAs(t, p, publisher, chat, http.StatusCreated)
	}
	publishAs(t, p, publisher, news, http.StatusCreated)
	if time.Now().After(ends) {
		return false
	}
	for f, want := range map[*noted]string{
		one:  "feed.open , 1, 2, 3, 4, feed.expired {\"reason\":\"token\"}, the end <nil>, ",
		many: strings.NewReplacer("chat", chat, "news", news).Replace("feed.open , chat=1,news=0, chat=2,news=0, chat=3,news=0, chat=4,news=0, chat=4,news=1, feed.expired {\"reason\":\"token\"}, the end <nil>, "),
	} {
		f.await(t, "the end ")
		if got := f.saw(); got != want {
			t.Errorf("saw\n%s\nwant\n%s\n%s", got, want, p.log)
		}
		if early := time.Until(ends); early > 0 {
			t.Errorf("a stream ended %v before its token ran out", early)
		}
		f.until(t, "it come back", func() bool { return f.source.status() != 0 })
		if f.source.status() != http.StatusUnauthorized {
			t.Errorf("who comes back with the old token gets no 401: %v", f.source)
		}
	}
	return true
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
