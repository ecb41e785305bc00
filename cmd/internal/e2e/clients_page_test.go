package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"
	"github.com/rejoin/rejoin/storage/testserver"
)

// TestClientExamples runs the examples of docs/clients.md. The connections of each are
// cut, and each has to show all events, once and in order, and to end with the feed.
func TestClientExamples(t *testing.T) {
	t.Parallel()
	node := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"), "REJOIN_SUBSCRIBE_RETRY=20ms")
	blocks := readExamples(t, "clients.md")
	checkAllRun(t, blocks, "browser.html", "htmx.html", "follow.sh", "publish.sh", "follow.py", "main.go", "node.mjs")
	dir := writeExamples(t, blocks)
	for _, name := range []string{"publish.sh", "follow.sh", "follow.py", "main.go"} {
		writeFile(t, filepath.Join(dir, name), example(t, blocks, name))
	}
	for range 2 { // the second one repeats the first
		cmd := exec.Command("sh", "publish.sh")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "REJOIN_URL="+node.url)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), `"id":1,`) {
			t.Fatalf("publish.sh: %v, %s", err, out)
		}
	}
	want := []string{"paid"}
	publishSome := func() {
		t.Helper()
		for range 20 {
			data := fmt.Sprintf("<li>event %d</li>", len(want)+1)
			if _, err := publish(http.DefaultClient, node.url, "chat", data); err != nil {
				t.Fatal(err)
			}
			want = append(want, data)
		}
	}
	publishSome()

	// An example ends its program, or shows a list in a page.
	shown := make(map[string]func() []string)
	programs := make(map[string]*process)
	for name, args := range map[string][]string{
		"shell":  {"sh", "follow.sh"},
		"Node":   {"node", "node.mjs"},
		"Python": {"python3", "follow.py"},
		"Go":     {"go", "run", filepath.Join(dir, "main.go")},
	} {
		proxy := newCutter(t, node.url)
		cutShort(t, proxy, cutTwice(proxy))
		cmd := exec.Command(args[0], args[1:]...)
		if name != "Go" { // which runs in its module
			cmd.Dir = dir
		}
		out := &lockedBuffer{}
		cmd.Env, cmd.Stdout = append(os.Environ(), "REJOIN_URL="+proxy.URL(node.url)), out
		programs[name] = launch(t, cmd)
		shown[name] = out.lines
	}
	ctx := browser(t)
	for _, name := range []string{"browser.html", "htmx.html"} {
		shown[name] = showPage(t, ctx, node.url, name, example(t, blocks, name))
	}
	publishSome()
	resp, err := http.Post(node.url+"/v1/feeds/chat/close", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for name, lines := range shown {
		expected := want
		if name == "htmx.html" { // the events are its list
			expected = nil
			for _, line := range want[1:] {
				expected = append(expected, strings.TrimSuffix(strings.TrimPrefix(line, "<li>"), "</li>"))
			}
		}
		if diff := cmp.Diff(expected, awaitLines(lines, len(expected))); diff != "" {
			t.Errorf("%s (-published, +shown): %s", name, diff)
		}
	}
	for name, p := range programs {
		if err := p.wait(); err != nil {
			t.Errorf("%s ended with %v:\n%s", name, err, p.log)
		}
	}
}

// cutTwice cuts the first two connections through p.
func cutTwice(p *testserver.Proxy) func(*rand.Rand) int64 {
	return func(r *rand.Rand) int64 {
		if p.Cuts() >= 2 {
			return 0
		}
		return 1 + r.Int64N(1500)
	}
}

// showPage opens a page in a tab of the browser, cuts its connections, and returns a
// function that returns the entries of its list.
func showPage(t *testing.T, browser context.Context, node, name, page string) func() []string {
	t.Helper()
	htmx := filepath.Join(nodeDir(t), "node_modules/htmx.org/dist")
	front := startFront(t, node, "", map[string]string{
		name:            page,
		"htmx.min.js":   readFile(t, filepath.Join(htmx, "htmx.min.js")),
		"hx-sse.min.js": readFile(t, filepath.Join(htmx, "ext/hx-sse.min.js")),
	})
	proxy := newCutter(t, front.URL)
	tab, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	if err := chromedp.Do(tab, chromedp.Navigate(proxy.URL(front.URL)+"/"+name)); err != nil {
		t.Fatal(err)
	}
	lines := func() []string {
		text, err := chromedp.Run(tab, chromedp.Evaluate[string](`JSON.stringify([...document.querySelectorAll("li")].map(li => li.textContent))`))
		if err != nil {
			t.Fatal(err)
		}
		var entries []string
		if err := json.Unmarshal([]byte(text), &entries); err != nil {
			t.Fatal(err)
		}
		return entries
	}
	awaitLines(lines, 1) // htmx does not repeat its first request
	cutShort(t, proxy, cutTwice(proxy))
	return lines
}
