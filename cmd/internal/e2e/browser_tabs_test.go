package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestConsoleTabs: eight tabs of one browser follow eight feeds of one server
// over HTTP/1.1, where a browser opens at most six connections. Each gets the
// events of its feeds, once, also those that it missed while it was cut off.
func TestConsoleTabs(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	first := browser(t)
	var tabs []context.Context
	for i := range 8 {
		tab := first
		if i > 0 {
			next, cancel := chromedp.NewContext(first)
			t.Cleanup(cancel)
			tab = next
		}
		tabs = append(tabs, tab)
		if err := chromedp.Do(tab,
			chromedp.Navigate(fmt.Sprintf("%s/feeds/all,tab-%d", p.url, i)),
			chromedp.WaitReady(chromedp.CSS(`#status[data-state="live"]`)),
		); err != nil {
			t.Fatalf("tab %d: %v", i, err)
		}
	}
	if err := chromedp.Do(first,
		chromedp.Evaluate[chromedp.Void](`document.getElementById("cut").click()`),
		chromedp.WaitReady(chromedp.CSS(`#status[data-state="cut"]`)),
	); err != nil {
		t.Fatal(err)
	}
	for i := range tabs {
		for _, name := range []string{"all", fmt.Sprint("tab-", i)} {
			if _, err := publish(http.DefaultClient, p.url, name, fmt.Sprint("for ", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The first tab comes back with the oldest cursor of all; the others are not to see anything twice.
	if err := chromedp.Do(first, chromedp.Evaluate[chromedp.Void](`document.getElementById("cut").click()`)); err != nil {
		t.Fatal(err)
	}
	for i, tab := range tabs {
		checkTab(t, tab, i, len(tabs))
	}
}

// checkTab waits for what a tab shows of its two feeds. A tab in the background
// draws nothing, so it is brought to the front first.
func checkTab(t *testing.T, tab context.Context, i, all int) {
	t.Helper()
	if err := chromedp.Do(tab,
		bringToFront,
		chromedp.WaitReady(chromedp.CSS(fmt.Sprintf(`#events [data-feed="all"][data-id="%d"]`, all))),
		chromedp.WaitReady(chromedp.CSS(fmt.Sprintf(`#events [data-feed="tab-%d"][data-id="1"]`, i))),
	); err != nil {
		t.Fatalf("tab %d: %v", i, err)
	}
	got := shown(t, tab)
	if len(got["all"]) != all || len(got[fmt.Sprint("tab-", i)]) != 1 || len(got) != 2 {
		t.Errorf("tab %d shows %q", i, got)
	}
}
