package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/storage/testserver"
)

// pageIn returns the example of a page of the documentation with a name of its own.
func pageIn(t *testing.T, page, name string) string {
	t.Helper()
	return example(t, readExamples(t, page), name)
}

// open opens a page in a tab of its own.
func open(t *testing.T, browser context.Context, url string) context.Context {
	t.Helper()
	tab, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	if err := chromedp.Do(tab, chromedp.Navigate(url)); err != nil {
		t.Fatal(err)
	}
	return tab
}

// listIn returns a function that returns the entries of a page's list.
func listIn(t *testing.T, tab context.Context) func() []string {
	return func() (entries []string) {
		text, err := chromedp.Run(tab, chromedp.Evaluate[string](`JSON.stringify([...document.querySelectorAll("li")].map(li => li.textContent))`))
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(text), &entries); err != nil {
			t.Fatal(err)
		}
		return entries
	}
}

// TestDocsPages opens the page of docs/start.md, which comes from another origin than the
// server.
func TestDocsPages(t *testing.T) {
	t.Parallel()
	var page string
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprint(w, page)
	}))
	t.Cleanup(front.Close)
	node := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"), "REJOIN_CORS_ORIGINS="+front.URL)
	page = strings.ReplaceAll(pageIn(t, "start.md", "index.html"), "http://127.0.0.1:8080", node.url)
	list := listIn(t, open(t, browser(t), front.URL))
	for _, text := range []string{"hello", "are you there?"} {
		resp, err := http.Post(node.url+"/v1/feeds/room/events?type=said", "application/json", strings.NewReader(fmt.Sprintf("{%q:%q}", "text", text)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if diff := cmp.Diff([]string{"hello", "are you there?"}, awaitLines(list, 2)); diff != "" {
		t.Errorf("(-published, +shown): %s", diff)
	}
}

// TestDocsOutbox writes to the page with an outbox while its connections break, and
// reloads it. Each text is stored once, in order.
func TestDocsOutbox(t *testing.T) {
	t.Parallel()
	node := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"), "REJOIN_SUBSCRIBE_RETRY=20ms")
	front := startFront(t, node.url, "", map[string]string{"outbox.html": pageIn(t, "recipes.md", "outbox.html")})
	proxy := newCutter(t, front.URL)
	tab := open(t, browser(t), proxy.URL(front.URL)+"/outbox.html")
	var want []string
	write := func(n int) {
		t.Helper()
		for range n {
			text := fmt.Sprint("text ", len(want)+1)
			want = append(want, text)
			if _, err := chromedp.Run(tab, chromedp.Evaluate[bool](fmt.Sprintf("document.querySelector('#text').value = %q; form.requestSubmit(); true", text))); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(3)
	awaitLines(listIn(t, tab), 3)
	proxy.Point("127.0.0.1:1") // nobody listens there
	proxy.Cut(testserver.Reset)
	write(3)
	proxy.Point(strings.TrimPrefix(front.URL, "http://"))
	if err := chromedp.Do(tab, chromedp.Reload()); err != nil {
		t.Fatal(err)
	}
	write(1)
	if diff := cmp.Diff(want, awaitLines(listIn(t, tab), len(want))); diff != "" {
		t.Errorf("(-written, +shown): %s", diff)
	}
}
