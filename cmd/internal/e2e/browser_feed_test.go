package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/rejoin/rejoin/web"
)

// bringToFront makes the tab the one that is seen.
var bringToFront = chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
	_, err := cdp.Call(ctx, target, page.BringToFront, cdp.Empty{})
	return err
})

// script runs statements in the page.
func script(format string, args ...any) chromedp.Action[chromedp.Void] {
	return chromedp.Evaluate[chromedp.Void]("{" + fmt.Sprintf(format, args...) + "}")
}

// TestConsoleFeed reads a feed back to its first event, goes to an id, shows one
// type alone and the details of an event, and trims, deletes and closes.
func TestConsoleFeed(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	ctx := browser(t)
	publishLines(t, p.url+"/v1/feeds/long/events", 400)
	first := func(id int) chromedp.CSS {
		return chromedp.CSS(fmt.Sprintf(`#events [data-id="%d"]`, id))
	}
	if err := chromedp.Do(ctx,
		chromedp.Navigate(p.url+"/feeds/long"),
		chromedp.WaitVisible(chromedp.CSS(`#status[data-state="live"]`)),
		chromedp.WaitReady(first(400)),
		// Each scroll to the top reads one page more.
		script(`const list = document.getElementById("events"); const back = () => { list.scrollTop = 0; if (!list.querySelector('[data-id="1"]')) setTimeout(back, 20) }; back()`),
		chromedp.WaitReady(first(1)),
	); err != nil {
		t.Fatal(err)
	}
	checkRow(t, ctx, "the whole feed", 1, 400)
	if err := chromedp.Do(ctx,
		script(`document.getElementById("newest").click(); document.getElementById("goto-where").value = "300"; document.getElementById("goto").requestSubmit()`),
		chromedp.WaitReady(chromedp.CSS(`#events .sought[data-id="300"]`)),
		// The arrow keys go on from there.
		chromedp.KeyEvent(kb.ArrowDown),
		chromedp.WaitReady(chromedp.CSS(`#events [data-id="301"] .id:focus`)),
		chromedp.KeyEvent(kb.ArrowUp),
		chromedp.KeyEvent(kb.Enter),
		chromedp.WaitVisible(chromedp.CSS(`#events [data-id="300"] .details`)),
	); err != nil {
		t.Fatal(err)
	}
	checkRow(t, ctx, "around 300", 250, 349)
	if got := textOf(t, ctx, `#events [data-id="300"] .details dl`); !strings.HasPrefix(got, "FeedlongId300Typeodd") {
		t.Errorf("the details are %q", got)
	}
	if err := chromedp.Do(ctx,
		script(`document.getElementById("newest").click()`),
		chromedp.WaitReady(first(400)),
		script(`document.querySelector('#types [data-chip="even"]').click()`),
		chromedp.WaitReady(chromedp.CSS(`#events [data-id="400"][hidden]`)),
	); err != nil {
		t.Fatal(err)
	}
	if got, err := chromedp.Run(ctx, chromedp.Evaluate[bool](
		`location.hash === "#types=even" && [...document.querySelectorAll("#events .event")].every(row => row.hidden === (row.dataset.type !== "even"))`)); err != nil || !got {
		t.Errorf("the filter does not show the chosen type alone (%v)", err)
	}
	manageFeed(t, ctx)
}

// manageFeed trims, deletes and closes the feed, each after a dialog that names it.
func manageFeed(t *testing.T, ctx context.Context) {
	t.Helper()
	for _, step := range []struct{ task, before, want string }{
		{"trim", "350", "Trimmed long: the events below 350 are gone."},
		{"delete", "", "Deleted all events of long."},
		{"close", "", "Closed long."},
	} {
		if err := chromedp.Do(ctx,
			script(`document.getElementById("manage-%s").click()`, step.task),
			chromedp.WaitVisible(chromedp.CSS("#confirm[open]")),
		); err != nil {
			t.Fatal(err)
		}
		if got := textOf(t, ctx, "#confirm-title") + textOf(t, ctx, "#confirm-send"); strings.Count(got, "long") != 2 {
			t.Errorf("%s is confirmed by %q", step.task, got)
		}
		if err := chromedp.Do(ctx,
			script(`document.getElementById("manage-result").textContent = ""; document.getElementById("confirm-before").value = %q; document.getElementById("confirm-form").requestSubmit()`, step.before),
			chromedp.WaitVisible(chromedp.CSS("#manage-result:not(:empty)")),
		); err != nil {
			t.Fatal(err)
		}
		if got := textOf(t, ctx, "#manage-result"); got != step.want {
			t.Errorf("it says %q, want %q", got, step.want)
		}
	}
	if err := chromedp.Do(ctx,
		chromedp.WaitVisible(chromedp.CSS(`#status[data-state="closed"]`)),
		chromedp.Reload(),
		chromedp.WaitVisible(chromedp.CSS(`#status[data-state="closed"]`)),
	); err != nil {
		t.Fatal(err)
	}
	if got := textOf(t, ctx, "#empty-hint"); got != "Events 1 to 400 were trimmed or deleted." {
		t.Errorf("of a deleted feed it says %q", got)
	}
}

// checkRow checks that the list has the events from first to last, and each once.
func checkRow(t *testing.T, ctx context.Context, what string, first, last int) {
	t.Helper()
	got, err := chromedp.Run(ctx, chromedp.Evaluate[string](`[...document.querySelectorAll("#events .event")].map(row => row.dataset.id).join()`))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for id := first; id <= last; id++ {
		want = append(want, fmt.Sprint(id))
	}
	if got != strings.Join(want, ",") {
		t.Errorf("%s: the list has %s", what, got)
	}
}

// publishLines publishes so many events of the types odd and even.
func publishLines(t *testing.T, url string, count int) {
	t.Helper()
	var lines strings.Builder
	for i := range count {
		fmt.Fprintf(&lines, "{\"type\":%q,\"data\":%d}\n", []string{"even", "odd"}[i%2], i)
	}
	resp, err := http.Post(url, "application/x-ndjson", strings.NewReader(lines.String()))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("publish: status %d", resp.StatusCode)
	}
}

// hostileText would run in a page that took it for HTML.
const hostileText = `<img src=x onerror=globalThis.hit=1><script>hit=1</script>'"&amp;`

// hostileServer serves the console, and an interface whose every text is hostile.
func hostileServer(t *testing.T) string {
	t.Helper()
	text := fmt.Sprintf("%q", hostileText)
	event := func(feed string, id int) string {
		return fmt.Sprintf(`{"feed":%s,"id":%d,"type":%s,"time":%s,"key":%s,"data":%s}`, feed, id, text, text, text, text)
	}
	answer := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	problem := answer(http.StatusBadRequest, "application/problem+json", `{"title":`+text+`,"detail":`+text+`}`)
	mux := http.NewServeMux()
	mux.Handle("/", web.Handler())
	mux.Handle("GET /v1/feeds", answer(http.StatusOK, "application/json", fmt.Sprintf(`{"feeds":[{"feed":%s,"first":1,"last":1,"closed":false,"updated":%s}]}`, text, text)))
	mux.Handle("GET /readyz", answer(http.StatusOK, "application/json", fmt.Sprintf(`{"ready":true,"store":%s,"bus":%s}`, text, text)))
	mux.Handle("GET /v1/feeds/refused/events", problem)
	mux.Handle("POST /v1/feeds/{feed}/events", problem)
	mux.Handle("DELETE /v1/feeds/{feed}", problem)
	mux.Handle("GET /v1/feeds/{feed}/events", answer(http.StatusOK, "application/json", fmt.Sprintf(`{"feed":%s,"events":[%s],"cursor":"1","first":1,"last":1,"closed":false}`, text, event(text, 1))))
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		feed := fmt.Sprintf("%q", r.FormValue("feed"))
		w.Header().Set("Content-Type", "application/x-ndjson")
		fmt.Fprintf(w, `{"type":"feed.open","cursor":%s,"data":{"feeds":[{"feed":%s,"cursor":"1","first":1,"last":1}]}}`+"\n", text, feed)
		fmt.Fprintf(w, `{"feed":%s,"type":"feed.gap","cursor":"5","data":{"feed":%s,"after":"1","resumes":6,"reason":%s}}`+"\n", feed, feed, text)
		fmt.Fprintln(w, event(feed, 6))
		fmt.Fprintf(w, `{"feed":%s,"type":"node","data":{"node":%s,"name":%[2]s,"version":%[2]s,"started":%[2]s,"subscribers":%[2]s,"store":{"up":false,"reason":%[2]s},"bus":%[2]s,"followed":%[2]s}}`+"\n", feed, text)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	return srv.URL
}

// TestConsoleHostile: nothing that a server or a publisher says is more than text.
func TestConsoleHostile(t *testing.T) {
	t.Parallel()
	server := hostileServer(t)
	ctx := browser(t)
	name := strings.NewReplacer("<", "%3C", ">", "%3E", " ", "%20", `"`, "%22", "/", "%2F", "&", "%26", ";", "%3B").Replace(hostileText)
	for path, steps := range map[string][]chromedp.Action[chromedp.Void]{
		"/": {
			chromedp.WaitVisible(chromedp.CSS("#feeds-list .name")),
			chromedp.WaitVisible(chromedp.CSS("#nodes-list .name")),
		},
		"/feeds/" + name: {
			chromedp.WaitReady(chromedp.CSS(`#events [data-id="6"]`)),
			chromedp.WaitReady(chromedp.CSS(`#events [data-mark="gap"]`)),
			script(`document.querySelectorAll("#events .id").forEach(one => one.click()); document.querySelector("#types button").click()`),
			script(`document.getElementById("publish-data").value = "x"; document.getElementById("publish").requestSubmit()`),
			chromedp.WaitVisible(chromedp.CSS(`#publish-result[data-state="error"]`)),
			script(`document.getElementById("manage-delete").click(); document.getElementById("confirm-form").requestSubmit()`),
			chromedp.WaitVisible(chromedp.CSS("#confirm-problem:not(:empty)")),
			script(`document.querySelectorAll("#languages button").forEach(one => one.click())`),
		},
		"/feeds/refused": {
			chromedp.WaitVisible(chromedp.CSS(`#status[data-state="failed"]`)),
		},
	} {
		if err := chromedp.Do(ctx, append([]chromedp.Action[chromedp.Void]{chromedp.Navigate(server + path)}, steps...)...); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		got, err := chromedp.Run(ctx, chromedp.Evaluate[string](
			`[globalThis.hit, document.querySelectorAll("img, iframe, script:not([src])").length, document.body.textContent.includes("<img src=x onerror")].join()`))
		if err != nil || got != ",0,true" {
			t.Errorf("%s: a script ran, markup was made, or the text is not shown: %q (%v)", path, got, err)
		}
	}
}
