package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestDocsNginxUnderAPath uses the console under a path of nginx, which passes the path
// on as the page has it, or removes it.
func TestDocsNginxUnderAPath(t *testing.T) {
	t.Parallel()
	var config string
	for _, page := range documentation(t) {
		for _, b := range page.Blocks {
			if b.Mark == "run: TestDocsNginxUnderAPath" {
				config = b.Text
			}
		}
	}
	node := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"), "REJOIN_SERVER_BASE_PATH=/rejoin/", "REJOIN_SERVER_DEMO=true")
	ctx := browser(t)
	const passes, removes = "proxy_pass http://127.0.0.1:8080;", "proxy_pass http://127.0.0.1:8080/;"
	if strings.Count(config, passes) != 1 {
		t.Fatalf("the configuration does not have %q:\n%s", passes, config)
	}
	for name, config := range map[string]string{"passes": config, "removes": strings.Replace(config, passes, removes, 1)} {
		useUnderAPath(t, ctx, startDocsNginx(t, node, config)+"/rejoin", name)
	}
	checkAddresses(t, node)
	if err := chromedp.Do(ctx,
		chromedp.Click(chromedp.CSS(".to-demo")),
		chromedp.WaitVisible(chromedp.CSS(`#ben .state[data-state="live"]`)),
		chromedp.Click(chromedp.CSS("#ask")),
		chromedp.WaitReady(chromedp.CSS("#words span:nth-child(2)")),
	); err != nil {
		t.Error(err)
	}
}

// useUnderAPath follows a feed from the page of all feeds, cuts it, and publishes.
func useUnderAPath(t *testing.T, ctx context.Context, url, feed string) {
	t.Helper()
	if _, err := publish(http.DefaultClient, url, feed, "one"); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx,
		chromedp.Navigate(url), // to which nginx or the server adds the slash
		chromedp.WaitVisible(chromedp.CSS(`#status[data-state="live"]`)),
		chromedp.WaitVisible(chromedp.CSS(`#feeds-list [href$="/rejoin/feeds/`+feed+`"]`)),
		script(`document.querySelector('#feeds-list [href$="/rejoin/feeds/%s"]').click()`, feed), // wherever the list has moved it
		chromedp.WaitVisible(chromedp.CSS(`#cut[data-action="cut"]:enabled`)),
		chromedp.WaitVisible(chromedp.CSS(`#status[data-state="live"]`)),
		chromedp.Click(chromedp.CSS("#cut")),
		chromedp.WaitVisible(chromedp.CSS(`#status[data-state="cut"]`)),
		chromedp.SendKeys(chromedp.CSS("#publish-data"), "from the box"),
		chromedp.Click(chromedp.CSS("#publish-send")),
		chromedp.WaitVisible(chromedp.CSS(`#publish-result[data-state="ok"]`)),
		chromedp.Click(chromedp.CSS("#cut")), // on a slow machine, the page has come back by itself
		chromedp.WaitVisible(chromedp.CSS(`#events [data-id="2"]`)),
		script(`document.querySelector('#events [data-id="2"] .id').click()`),
		chromedp.WaitVisible(chromedp.CSS(`#events [data-id="2"] .details`)),
	); err != nil {
		t.Fatal(err)
	}
	if got := textOf(t, ctx, "#path-before"); got != "/rejoin/v1/feeds/" {
		t.Errorf("the page shows the path %q", got)
	}
	if got := textOf(t, ctx, "#code-resume"); !strings.Contains(got, url+"/v1/feeds/"+feed+"/events") {
		t.Errorf("the way to resume is %q", got)
	}
	// A request beside the path would show here, and so would the modules that a page loads
	// when it cannot share a worker with others.
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](
		`JSON.stringify(performance.getEntriesByType("resource").map(entry => entry.name).concat(document.querySelector(".wordmark").href))`))
	if err != nil {
		t.Fatal(err)
	}
	var loaded []string
	if err := json.Unmarshal([]byte(text), &loaded); err != nil {
		t.Fatal(err)
	}
	for _, one := range loaded {
		if !strings.HasPrefix(one, url+"/") || strings.HasSuffix(one, "/console/lines.js") {
			t.Errorf("the page uses %s", one)
		}
	}
}

// checkAddresses demands that the addresses that a client gets lead through the proxy.
func checkAddresses(t *testing.T, node *process) {
	t.Helper()
	for name, path := range map[string]string{"Link": "/v1/feeds/passes/events?after=0&limit=1", "Location": "/v1/feeds/passes/stream"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, node.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if name == "Link" {
			req.Header.Set("Accept", "application/json")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := strings.TrimPrefix(resp.Header.Get(name), "<"); !strings.HasPrefix(got, "/rejoin/v1/feeds/passes/") {
			t.Errorf("%s: %s is %q", path, name, got)
		}
	}
}
