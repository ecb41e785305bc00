package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestDemo reaches the demo from the console, reloads it in the middle of an answer,
// stops the answer, and lets the chat run with the cursor and without.
func TestDemo(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"), "REJOIN_SERVER_DEMO=true")
	ctx := browser(t)
	if err := chromedp.Do(ctx,
		chromedp.Navigate(p.url),
		chromedp.Click(chromedp.CSS(".to-demo")),
		chromedp.WaitVisible(chromedp.CSS(`#ada .state[data-state="live"]`)),
		chromedp.WaitVisible(chromedp.CSS(`#ben .state[data-state="live"]`)),
		chromedp.WaitReady(chromedp.CSS(`[data-source="answer.js"]:not(:empty)`)),
		chromedp.WaitReady(chromedp.CSS(`[data-source="chat.js"]:not(:empty)`)),
	); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"chat.js", "answer.js"} {
		if got, want := textOf(t, ctx, `[data-source="`+name+`"]`), bodyOf(t, p.url+"/demo/"+name); got != strings.TrimSpace(want) {
			t.Errorf("%s is shown as %q", name, got)
		}
	}
	for try := 1; !reloadAnswer(t, ctx); try++ {
		if try == 5 {
			t.Fatal("each answer was over before it was stopped")
		}
		if err := chromedp.Do(ctx,
			chromedp.Navigate(p.url),
			chromedp.Click(chromedp.CSS(".to-demo")),
			chromedp.WaitVisible(chromedp.CSS(`#ada .state[data-state="live"]`)),
			chromedp.WaitVisible(chromedp.CSS(`#ben .state[data-state="live"]`)),
		); err != nil {
			t.Fatal(err)
		}
	}
	breakChat(t, ctx, p.url)
	hideChat(t, ctx)
	for _, screen := range []struct{ width, height int64 }{{360, 640}, {390, 844}, {768, 1024}, {992, 744}, {1440, 900}} {
		if err := chromedp.Do(ctx, chromedp.EmulateViewport(screen.width, screen.height)); err != nil {
			t.Fatal(err)
		}
		checkLayout(t, ctx, "the demo", float64(screen.width), float64(screen.height))
	}
	checkAccess(t, ctx, "the demo", "light")
	checkAccess(t, ctx, "the demo", "dark")
}

func bodyOf(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", url, resp.Status, err)
	}
	return string(text)
}

// reloadAnswer reloads the page in the middle of an answer, and stops it then. It reports
// whether the machine was quick enough for that: an answer takes 16 seconds.
func reloadAnswer(t *testing.T, ctx context.Context) (inTime bool) {
	t.Helper()
	word := func(n int) chromedp.CSS { return chromedp.CSS(fmt.Sprintf("#words span:nth-child(%d)", n)) }
	if err := chromedp.Do(ctx,
		chromedp.Click(chromedp.CSS("#ask")),
		chromedp.WaitReady(word(12)),
		script(`document.documentElement.dataset.old = true; document.getElementById("reload").click()`),
		chromedp.WaitReady(chromedp.CSS("html:not([data-old]) #words span:nth-child(18)")),
		script(`document.getElementById("stop").click()`),
		chromedp.WaitReady(chromedp.CSS(`#answer-state[data-state="closed"]`)),
	); err != nil {
		t.Fatal(err)
	}
	switch got := textOf(t, ctx, "#words"); {
	case !strings.HasPrefix(got, "A program on the server writes this answer, one word at a time. "):
		t.Errorf("after the reload and the stop, the answer is %q", got)
	case strings.HasSuffix(got, "and the end."):
		return false
	}
	if got := textOf(t, ctx, "#answer-score"); !strings.Contains(got, ", before the reload ") {
		t.Errorf("of the reload it says %q", got)
	}
	if got := textOf(t, ctx, "#answer-problem"); got != "" {
		t.Errorf("the page has a problem: %q", got)
	}
	return true
}

// hideChat hides the page, which then holds no connection, and shows it again.
func hideChat(t *testing.T, ctx context.Context) {
	t.Helper()
	const tell = `document.dispatchEvent(new Event("visibilitychange"))`
	if err := chromedp.Do(ctx,
		script(`Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true }); `+tell),
		chromedp.WaitReady(chromedp.CSS(`#ada .state[data-state="cut"]`)),
		chromedp.WaitReady(chromedp.CSS(`#ben .state[data-state="cut"]`)),
		script(`delete document.visibilityState; `+tell),
		chromedp.WaitReady(chromedp.CSS(`#ada .state[data-state="live"]`)),
		chromedp.WaitReady(chromedp.CSS(`#ben .state[data-state="live"]`)),
	); err != nil {
		t.Fatal(err)
	}
	if got := textOf(t, ctx, "#talk") + textOf(t, ctx, "#ada .missed"); got != "Let them talk0" {
		t.Errorf("after the page was hidden, it says %q", got)
	}
}

// breakChat has Ben miss messages, with the cursor and without, and publishes what no page
// should run.
func breakChat(t *testing.T, ctx context.Context, server string) {
	t.Helper()
	if err := chromedp.Do(ctx,
		chromedp.Click(chromedp.CSS("#talk")),
		chromedp.WaitReady(chromedp.CSS(`#ben .state[data-state="cut"]`)),
		chromedp.WaitReady(chromedp.CSS(`#ben .late:nth-child(5)`)),
		script(`document.getElementById("with-cursor").click()`),
		chromedp.WaitReady(chromedp.CSS(`#ben .lost`)),
	); err != nil {
		t.Fatal(err)
	}
	for selector, want := range map[string]string{"#ada .missed": "0", "#score-with b": "0", "#score-without b": "3"} {
		if got := textOf(t, ctx, selector); got != want {
			t.Errorf("%s is %s, want %s", selector, got, want)
		}
	}
	// A round has two messages, three while Ben is away, and one when he is back.
	const idsBefore = `[...document.querySelectorAll("#ben li")].map(row => row.querySelector(".id")?.textContent ?? row.textContent).join().split(",9 to 11 are missing")[0]`
	if got, err := chromedp.Run(ctx, chromedp.Evaluate[string](idsBefore)); err != nil || got != "1,2,3,4,5,6,7,8" {
		t.Errorf("Ben has %q before the messages that are missing (%v)", got, err)
	}
	room, err := chromedp.Run(ctx, chromedp.Evaluate[string](`document.getElementById("chat-feed").href.split("/feeds/")[1]`))
	if err != nil {
		t.Fatal(err)
	}
	for data, want := range map[string]string{
		`{"from":"<img src=x onerror=document.title=1>","text":"<b>bold</b>"}`: "<img src=x onerror=document.title=1> <b>bold</b>",
		`{"text":7}`: ` {"text":7}`, "<script>document.title=2</script>": " <script>document.title=2</script>", "null": " null",
	} {
		id, err := publish(http.DefaultClient, server, room, data)
		if err != nil {
			t.Fatal(err)
		}
		row := fmt.Sprintf(`#ada [data-id="%d"]`, id)
		if err := chromedp.Do(ctx, chromedp.WaitReady(chromedp.CSS(row))); err != nil {
			t.Fatal(err)
		}
		if got := textOf(t, ctx, row); got != fmt.Sprint(id, " ", want) {
			t.Errorf("%s is shown as %q", data, got)
		}
	}
}
