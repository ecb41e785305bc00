package e2e

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/rejoin/rejoin/storage/testserver"
)

// TestConsoleWaiting opens the pages of a node that has not reached its store. They say
// so, without the address and the password of the store, and come alive without a reload
// when the store is there.
func TestConsoleWaiting(t *testing.T) {
	t.Parallel()
	postgres := testserver.StartPostgres(t)
	store := postgres.NewDatabase(t)
	postgres.Stop(t, testserver.Fast)
	node := serveNode(t, built(t, false), store, "postgres", "REJOIN_SERVER_BASE_PATH=/rejoin", "REJOIN_SERVER_DEMO=true")
	node.logged("the store cannot be reached; waiting for it")

	ctx := browser(t)
	if err := chromedp.Do(ctx, chromedp.Navigate(node.url+"/rejoin")); err != nil { // the server adds the slash
		t.Fatal(err)
	}
	const notReady = `document.getElementById("status-word").textContent === "Not ready" && document.getElementById("store").textContent === "down"`
	awaitTrue(t, ctx, notReady+` && document.getElementById("notice-text").textContent === "this node has not reached its store yet; trying again"`)
	checkAccess(t, ctx, overview, "light")
	checkAccess(t, ctx, overview, "dark")
	for _, screen := range []struct{ width, height int64 }{{360, 640}, {1440, 900}} {
		if err := chromedp.Do(ctx, chromedp.EmulateViewport(screen.width, screen.height)); err != nil {
			t.Fatal(err)
		}
		checkLayout(t, ctx, overview, float64(screen.width), float64(screen.height))
	}
	checkNothingSecret(t, ctx, node, store)

	feed, closeTab := chromedp.NewContext(ctx)
	defer closeTab()
	if err := chromedp.Do(feed,
		chromedp.Navigate(node.url+"/rejoin/feeds/orders"),
		chromedp.WaitVisible(chromedp.CSS(`#status[data-state="reconnecting"]`)),
	); err != nil {
		t.Fatal(err)
	}
	awaitTrue(t, feed, `document.getElementById("notice-text").textContent.startsWith("this node has not reached its store yet")`)
	const mark = `document.documentElement.dataset.opened = "while waiting"`
	if err := chromedp.Do(feed, script(mark)); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, bringToFront, script(mark)); err != nil {
		t.Fatal(err)
	}

	postgres.Start(t)
	node.awaitReady()
	if _, err := publish(http.DefaultClient, node.url, "orders", "one"); err != nil {
		t.Fatal(err)
	}
	const opened = ` && document.documentElement.dataset.opened === "while waiting"`
	awaitTrue(t, ctx, `document.getElementById("status-word").textContent === "Ready" && document.getElementById("notice").hidden`+
		` && document.querySelector('#feeds-list [href$="/rejoin/feeds/orders"]') && document.getElementById("alive").textContent === "1"`+opened)
	if err := chromedp.Do(feed, bringToFront); err != nil {
		t.Fatal(err)
	}
	awaitTrue(t, feed, `document.querySelector('#events [data-id="1"]')`+opened)
}

// checkNothingSecret demands that neither the page nor the answers tell where the store is
// and how to log in to it.
func checkNothingSecret(t *testing.T, ctx context.Context, node *process, store string) {
	t.Helper()
	u, err := url.Parse(store)
	if err != nil {
		t.Fatal(err)
	}
	page, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.documentElement.outerHTML`))
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{"the page": page}
	for _, path := range []string{"/readyz", "/healthz", "/v1/feeds", "/v1/feeds/orders/events"} {
		told[path] = answerOf(t, node.url+"/rejoin"+path)
	}
	password, _ := u.User.Password()
	for _, secret := range []string{u.Host, u.Port(), strings.TrimPrefix(u.Path, "/"), u.User.Username(), password} {
		if secret == "" {
			t.Fatalf("the store at %s has no secrets to look for", store)
		}
		for of, text := range told {
			if strings.Contains(text, secret) {
				t.Errorf("%s tells a visitor %q: %s", of, secret, text)
			}
		}
	}
}

// answerOf returns the body of an answer, whatever its status.
func answerOf(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) // a stream is broken off
	return string(text)
}
