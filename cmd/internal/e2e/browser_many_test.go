package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"
)

// losesFirstAnswer passes everything on to the server, and loses the answer to
// the first publish.
func losesFirstAnswer(t *testing.T, server string) string {
	t.Helper()
	target, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	var lost atomic.Bool
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host },
		FlushInterval: -1,
		ModifyResponse: func(resp *http.Response) error {
			if resp.Request.Method == http.MethodPost && lost.CompareAndSwap(false, true) {
				panic(http.ErrAbortHandler)
			}
			return nil
		},
	}
	srv := httptest.NewServer(proxy)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	return srv.URL
}

// shown returns what the list shows of each feed, with the ids.
func shown(t *testing.T, ctx context.Context) map[string][]string {
	t.Helper()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](
		`JSON.stringify([...document.querySelectorAll("#events .event")].map(row => [row.dataset.feed, row.querySelector(".id").textContent + " " + row.querySelector(".data").textContent]))`))
	if err != nil {
		t.Fatal(err)
	}
	var rows [][2]string
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, row := range rows {
		got[row[0]] = append(got[row[0]], row[1])
	}
	return got
}

func textOf(t *testing.T, ctx context.Context, selector string) string {
	t.Helper()
	text, err := chromedp.Run(ctx, chromedp.TextContent(chromedp.CSS(selector)))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestConsoleOfSeveralFeeds follows two feeds, publishes to one of them across
// an answer that is lost, misses events of both, has them delivered, and stays
// to the end of both.
func TestConsoleOfSeveralFeeds(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	page := losesFirstAnswer(t, p.url)
	ctx := browser(t)
	state := func(name string) chromedp.CSS { return chromedp.CSS(`#status[data-state="` + name + `"]`) }
	row := func(feed, id string) chromedp.CSS {
		return chromedp.CSS(fmt.Sprintf("#events [data-feed=%q][data-id=%q]", feed, id))
	}
	if err := chromedp.Do(ctx,
		chromedp.Navigate(page+"/feeds/orders"),
		chromedp.WaitVisible(state("live")),
		chromedp.SendKeys(chromedp.CSS("#feed"), ", news\r"),
		chromedp.WaitVisible(chromedp.CSS(`#feeds [data-feed="news"]`)),
		chromedp.WaitVisible(state("live")),
		chromedp.Evaluate[chromedp.Void](`document.getElementById("publish-feed").value = "news"`),
		chromedp.SendKeys(chromedp.CSS("#publish-data"), "from the box"),
		chromedp.Click(chromedp.CSS("#publish-send")),
		chromedp.WaitVisible(chromedp.CSS(`#publish-result[data-state="ok"]`)),
		chromedp.WaitVisible(row("news", "1")),
		chromedp.Click(chromedp.CSS("#cut")),
		chromedp.WaitVisible(state("cut")),
	); err != nil {
		t.Fatal(err)
	}
	if got := textOf(t, ctx, "#publish-result"); got != "Published as 1 on news; an earlier attempt had already stored it" {
		t.Errorf("the box says %q", got)
	}
	want := map[string][]string{"news": {"1 from the box"}}
	for i := range 5 {
		for _, name := range []string{"orders", "news"}[i%2:] {
			data := fmt.Sprintf("missed <b>%d</b>", i)
			id, err := publish(http.DefaultClient, p.url, name, data)
			if err != nil {
				t.Fatal(err)
			}
			want[name] = append(want[name], fmt.Sprint(id, " ", data))
		}
	}
	if err := chromedp.Do(ctx,
		chromedp.Click(chromedp.CSS("#cut")),
		chromedp.WaitVisible(state("live")),
	); err != nil {
		t.Fatal(err)
	}
	// A page that was too slow to hear from the server has others, of connections before.
	awaitTrue(t, ctx, `[...document.querySelectorAll('#events [data-mark="caught-up"]')].some(mark => mark.textContent.includes("Caught up: 8 events missed and delivered (orders 3, news 5)"))`)
	if diff := cmp.Diff(want, shown(t, ctx)); diff != "" {
		t.Error(diff)
	}
	if got := textOf(t, ctx, "#feeds"); got != "ordersCursor3of 1–3newsCursor6of 1–6" {
		t.Errorf("the cursors are %q", got)
	}
	if got := textOf(t, ctx, "#code-resume"); !strings.Contains(got, "/v1/events?feed=orders,news'") || !strings.Contains(got, "'Last-Event-ID: orders=3,news=6'") {
		t.Errorf("from a terminal: %q", got)
	}
	endFeeds(t, ctx, p.url)
}

// endFeeds shows an ephemeral event, closes one feed by the box and the other
// one by hand.
func endFeeds(t *testing.T, ctx context.Context, server string) {
	t.Helper()
	post(t, server+"/v1/feeds/orders/events?ephemeral=true", http.StatusAccepted)
	if err := chromedp.Do(ctx,
		chromedp.WaitVisible(chromedp.CSS(`#events [data-how="ephemeral"][data-feed="orders"]`)),
		chromedp.Evaluate[chromedp.Void](`document.querySelector(".more").open = true; document.getElementById("publish-close").click()`),
		chromedp.SendKeys(chromedp.CSS("#publish-data"), "the end"),
		chromedp.Click(chromedp.CSS("#publish-send")),
		chromedp.WaitVisible(chromedp.CSS(`#feeds [data-feed="news"][data-closed="true"]`)),
		chromedp.WaitVisible(chromedp.CSS(`#events [data-mark="closed"][data-feed="news"]`)),
	); err != nil {
		t.Fatal(err)
	}
	if got := textOf(t, ctx, "#feeds"); got != "ordersCursor3of 1–3newsCursor7of 1–7, closed" {
		t.Errorf("the cursors are %q", got)
	}
	if got := textOf(t, ctx, "#code-publish"); !strings.Contains(got, "/v1/feeds/orders/events'") {
		t.Errorf("a closed feed is still offered, or the other one to be closed: %q", got)
	}
	post(t, server+"/v1/feeds/orders/close", http.StatusNoContent)
	if err := chromedp.Do(ctx, chromedp.WaitVisible(chromedp.CSS(`#status[data-state="closed"]`))); err != nil {
		t.Fatal(err)
	}
}

func post(t *testing.T, url string, want int) {
	t.Helper()
	resp, err := http.Post(url, "text/plain", strings.NewReader("typing"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != want {
		t.Fatalf("%s: status %d, %s", url, resp.StatusCode, text)
	}
}

// TestConsoleExpired: the page asks for a token, shows what it allows, explains why
// a stream has ended, and that it is refused from then on.
func TestConsoleExpired(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"), "REJOIN_AUTH_MODE=jwt", "REJOIN_AUTH_JWT_KEY="+tokenSecret, "REJOIN_SUBSCRIBE_RETRY=20ms")
	ctx := browser(t)
	for lifetime := 5 * time.Second; ; lifetime *= 2 {
		if err := chromedp.Do(ctx,
			chromedp.Navigate(p.url+"/feeds/log"),
			chromedp.WaitVisible(chromedp.CSS(`#status[data-state="failed"]`)),
		); err != nil {
			t.Fatal(err)
		}
		token := makeTokenWith(t, built(t, false), "--subscribe", "log", "--for", lifetime.String())
		if err := chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void](`document.getElementById("token").value = "`+token+`"; document.getElementById("token-form").requestSubmit()`)); err != nil {
			t.Fatal(err)
		}
		awaitTrue(t, ctx, `document.getElementById("token-summary").textContent.startsWith("Token in use: expired") && document.querySelector('#status[data-state="failed"]')`)
		live, err := chromedp.Run(ctx, chromedp.Evaluate[bool](`document.querySelector('#events [data-mark="lost"]') !== null`))
		if err != nil {
			t.Fatal(err)
		}
		if live || lifetime > time.Minute {
			break
		}
		// It was over before the page was live, on this machine.
		if err := chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void](`sessionStorage.clear(); localStorage.clear()`)); err != nil {
			t.Fatal(err)
		}
	}
	if got := textOf(t, ctx, "#token-subscribe") + ", " + textOf(t, ctx, "#token-admin"); got != "log, no" {
		t.Errorf("the claims are %q", got)
	}
	if got := textOf(t, ctx, "#token-summary"); !strings.HasPrefix(got, "Token in use: expired") {
		t.Errorf("the token box says %q", got)
	}
	if got := textOf(t, ctx, `#events [data-mark="lost"]`); got != "The token expired after event 0" {
		t.Errorf("it says %q", got)
	}
	if got := textOf(t, ctx, "#notice-text"); !strings.Contains(got, "token") {
		t.Errorf("the notice is %q", got)
	}
}
