package e2e

import (
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// browser starts a headless Chromium for the length of the test, nine minutes at most.
func browser(t testing.TB, options ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	return browserFor(t, 9*time.Minute, options...)
}

// browserFor starts one for the length of the test, within a limit.
func browserFor(t testing.TB, limit time.Duration, options ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("this test needs a browser: apt-get install chromium (%v)", err)
	}
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), slices.Concat(chromedp.DefaultExecAllocatorOptions[:], []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // containers and CI run as root
		chromedp.UserDataDir(t.TempDir()),
		chromedp.WindowSize(1440, 900),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	}, options)...)
	t.Cleanup(cancel)
	ctx, cancelTab := chromedp.NewContext(ctx)
	t.Cleanup(cancelTab)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	ctx, cancelTime := context.WithTimeout(ctx, limit)
	t.Cleanup(cancelTime)
	return ctx
}

// TestConsole uses the console page as a person would: publish from its box,
// cut its connection, miss events, and see them delivered on return.
func TestConsole(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	ctx := browser(t)
	event := func(id string) chromedp.CSS { return chromedp.CSS(`#events [data-id="` + id + `"] .data`) }
	if err := chromedp.Do(ctx,
		chromedp.Navigate(p.url+"/feeds/orders"),
		chromedp.WaitVisible(chromedp.CSS(`#status[data-state="live"]`)),
		chromedp.SendKeys(chromedp.CSS("#publish-data"), "from the box"),
		chromedp.Click(chromedp.CSS("#publish-send")),
		chromedp.WaitVisible(event("1")),
		chromedp.Click(chromedp.CSS("#cut")),
		chromedp.WaitVisible(chromedp.CSS(`#status[data-state="cut"]`)),
	); err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"missed <b>one</b>", "missed two", "missed three"} {
		if _, err := publish(http.DefaultClient, p.url, "orders", data); err != nil {
			t.Fatal(err)
		}
	}
	if err := chromedp.Do(ctx,
		chromedp.Click(chromedp.CSS("#cut")),
		chromedp.WaitVisible(chromedp.CSS(`#status[data-state="live"]`)),
		chromedp.WaitVisible(event("4")),
		chromedp.WaitVisible(chromedp.CSS(`#events [data-mark="caught-up"]`)),
	); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"1": "from the box", "2": "missed <b>one</b>", "3": "missed two", "4": "missed three"} {
		got, err := chromedp.Run(ctx, chromedp.TextContent(event(id)))
		if err != nil || got != want {
			t.Errorf("event %s shows %q, want %q (%v)", id, got, want, err)
		}
	}
}
