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
	files := newCertificateFiles(t)
	db := filepath.Join(t.TempDir(), "rejoin.db")
	env := append(files.env(), "REJOIN_SERVER_HTTP2=engine", "REJOIN_SUBSCRIBE_RETRY=100ms", "REJOIN_DRAIN_WINDOW=100ms")
	p := serve(t, built(t, false), db, env...)
	ctx := browser(t, chromedp.Flag("ignore-certificate-errors", true))
	client := files.client(t)
	open := fmt.Sprintf(`window.got = Array.from({length: %d}, () => []);
		window.got.forEach((ids, i) => new EventSource("/v1/feeds/f" + i + "/events?from=start").onmessage = e => ids.push(e.lastEventId));
		performance.getEntriesByType("navigation")[0].nextHopProtocol`, streams)
	if err := chromedp.Do(ctx, chromedp.Navigate(p.url+"/healthz")); err != nil {
		t.Fatal(err)
	}
	protocol, err := chromedp.Run(ctx, chromedp.Evaluate[string](open))
	if err != nil || protocol != "h2" {
		t.Fatalf("the page came over %q, %v", protocol, err)
	}
	for event := range events {
		if event == events/2 {
			address := strings.TrimPrefix(p.listening(), "https://")
			if err := p.terminate(); err != nil {
				t.Fatal(err)
			}
			p = serveAt(t, built(t, false), address, "sqlite:"+db, "memory", env...)
		}
		for stream := range streams {
			if _, err := publish(client, p.url, fmt.Sprint("f", stream), fmt.Sprint(event)); err != nil {
				t.Fatal(err)
			}
		}
	}
	all := fmt.Sprintf(`new Promise(done => { const look = () => window.got.every(ids => ids.length >= %[1]d) ?
		done(window.got.every(ids => ids.join() === Array.from({length: %[1]d}, (_, i) => i + 1).join())) : setTimeout(look, 50); look() })`, events)
	whole, err := chromedp.Run(ctx, chromedp.Evaluate[bool](all, chromedp.EvalAwaitPromise))
	if err != nil || !whole {
		t.Errorf("a stream has missed an event, or has one twice: %v", err)
	}
}
