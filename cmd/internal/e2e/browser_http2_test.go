package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestBrowserHTTP2: a page follows a hundred feeds with an EventSource each, all over
// one HTTP/2 connection that the engine carries. None of them misses an event, also
// across a node that stops.
func TestBrowserHTTP2(t *testing.T) {
	t.Parallel()
	const streams, events = 100, 20
	n := serveHTTP2(t)
	ctx := browser(t, chromedp.Flag("ignore-certificate-errors", true))
	open := fmt.Sprintf(`window.got = Array.from({length: %d}, () => []);
		window.got.forEach((ids, i) => new EventSource("/v1/feeds/f" + i + "/events?from=start").onmessage = e => ids.push(e.lastEventId));
		performance.getEntriesByType("navigation")[0].nextHopProtocol`, streams)
	if err := chromedp.Do(ctx, chromedp.Navigate(n.url+"/healthz")); err != nil {
		t.Fatal(err)
	}
	protocol, err := chromedp.Run(ctx, chromedp.Evaluate[string](open))
	if err != nil || protocol != "h2" {
		t.Fatalf("the page came over %q, %v", protocol, err)
	}
	n.publishAcrossARestart(streams, events)
	all := fmt.Sprintf(`new Promise(done => { const look = () => window.got.every(ids => ids.length >= %[1]d) ?
		done(window.got.every(ids => ids.join() === Array.from({length: %[1]d}, (_, i) => i + 1).join())) : setTimeout(look, 50); look() })`, events)
	whole, err := chromedp.Run(ctx, chromedp.Evaluate[bool](all, chromedp.EvalAwaitPromise))
	if err != nil || !whole {
		t.Errorf("a stream has missed an event, or has one twice: %v", err)
	}
}

// http2Node is a node whose streams the engine carries over HTTP/2.
type http2Node struct {
	*process
	t     *testing.T
	files certificateFiles
	db    string
	env   []string
}

func serveHTTP2(t *testing.T) *http2Node {
	t.Helper()
	files, db := newCertificateFiles(t), filepath.Join(t.TempDir(), "rejoin.db")
	env := append(files.env(), "REJOIN_SERVER_HTTP2=engine", "REJOIN_SUBSCRIBE_RETRY=100ms", "REJOIN_DRAIN_WINDOW=100ms")
	return &http2Node{serve(t, built(t, false), db, env...), t, files, db, env}
}

// publishAcrossARestart publishes so many events to the feeds f0, f1 and so on. After
// half of them, the node stops, and another one takes its place.
func (n *http2Node) publishAcrossARestart(feeds, events int) {
	n.t.Helper()
	client := n.files.client(n.t)
	for event := range events {
		if event == events/2 {
			address := strings.TrimPrefix(n.listening(), "https://")
			if err := n.terminate(); err != nil {
				n.t.Fatal(err)
			}
			n.process = serveAt(n.t, built(n.t, false), address, "sqlite:"+n.db, "memory", n.env...)
		}
		for i := range feeds {
			if _, err := publish(client, n.url, fmt.Sprint("f", i), fmt.Sprint(event)); err != nil {
				n.t.Fatal(err)
			}
		}
	}
}
