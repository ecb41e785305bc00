package e2e

import (
	"context"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// awaitTrue waits until the expression is true in the page.
func awaitTrue(t *testing.T, ctx context.Context, expression string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(50 * time.Millisecond) { // until the page has drawn it
		got, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean("+expression+")"))
		if err != nil {
			t.Fatal(err)
		}
		if got {
			return
		}
		if time.Now().After(deadline) {
			text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.querySelector("main").innerText`))
			t.Fatalf("it does not become true that %s; the page says %q", expression, text)
		}
	}
}

const (
	// nodeStates are the states of the nodes that the page lists.
	nodeStates = `[...document.querySelectorAll("#nodes-list li")].map(row => row.dataset.state).join()`
	// chartValues are the newest values of the charts.
	chartValues = `[...document.querySelectorAll(".chart .now")].map(now => now.textContent).join()`
)

// TestConsoleOverview shows two nodes and what they do, then that one is killed,
// that the bus is away, and that the server is.
func TestConsoleOverview(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start(2)
	c.mustPublish(c.nodes[0], "orders", "first")
	c.follow("orders", 2, c.nodes...)
	ctx := browser(t)
	if err := chromedp.Do(ctx, chromedp.Navigate(c.nodes[0].url)); err != nil {
		t.Fatal(err)
	}
	awaitTrue(t, ctx, nodeStates+` === "up,up" && document.getElementById("alive").textContent === "2"`)
	awaitTrue(t, ctx, `document.querySelector("#feeds-list .subscribers").textContent === "4"`)
	stop := c.publish(traffic{feed: "orders", publishers: 1, pause: 20 * time.Millisecond}, c.nodes...)
	awaitTrue(t, ctx, `/^[1-9][0-9,.]*\/s,[1-9][0-9,.]*\/s,5,p50 [0-9].*,p99 [0-9].*,p50 [0-9].*,p99 [0-9]/.test(`+chartValues+`)`)
	stop()
	for _, screen := range []struct{ width, height int64 }{{360, 640}, {768, 1024}, {992, 744}, {1440, 900}} {
		if err := chromedp.Do(ctx, chromedp.EmulateViewport(screen.width, screen.height)); err != nil {
			t.Fatal(err)
		}
		checkLayout(t, ctx, overview, float64(screen.width), float64(screen.height))
	}
	c.stopSubscribers()

	c.nodes[1].kill()
	awaitTrue(t, ctx, nodeStates+` === "silent,up" && document.getElementById("alive").textContent === "1"`)
	checkAccess(t, ctx, overview, "light")
	c.redis.Kill()
	awaitTrue(t, ctx, `document.querySelector('#nodes-list [data-state="trouble"] .trouble')?.textContent.startsWith("Bus away: ")`)
	c.nodes[0].kill()
	awaitTrue(t, ctx, `document.getElementById("notice-text").textContent.startsWith("The server cannot be reached") && `+nodeStates+`.endsWith("silent")`)
}
