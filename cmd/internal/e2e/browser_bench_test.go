package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
)

// paintLoads is how often a page is loaded to measure its first paint, and busyFor how
// long a busy one is watched.
const (
	paintLoads = 5
	busyFor    = 10 * time.Second
)

// noteTasks runs before a page does, and notes how long its long tasks take: those of 50 ms
// and more.
const noteTasks = `
globalThis.tasks = [];
new PerformanceObserver(list => tasks.push(...list.getEntries().map(task => task.duration))).observe({ type: "longtask", buffered: true });`

// BenchmarkConsole measures how soon the pages of the console appear in a browser that has
// nothing of them, and how long they keep the browser from anything else while events come:
// the longest task, which is 0 below 50 ms, and the share of the time that all tasks take.
func BenchmarkConsole(b *testing.B) {
	for _, path := range []string{"/", "/feeds/bench"} {
		name := map[string]string{"/": "overview", "/feeds/bench": "feed"}[path]
		b.Run("paint/"+name, func(b *testing.B) { measurePaint(b, path) })
		for _, rate := range []int{500, 2000} {
			b.Run(fmt.Sprintf("busy/%s/%d", name, rate), func(b *testing.B) { measureBusy(b, path, 1, rate) })
		}
	}
	b.Run("busy/overview/10000-feeds", func(b *testing.B) { measureBusy(b, "/", 10000, 500) })
}

func measurePaint(b *testing.B, path string) {
	p := serveBenchmark(b)
	if _, err := publish(http.DefaultClient, p.url, "bench", payload); err != nil {
		b.Fatal(err)
	}
	ctx := browser(b)
	for b.Loop() {
		var paints []float64
		for range paintLoads {
			if err := chromedp.Do(ctx,
				chromedp.Navigate("about:blank"),
				command(network.ClearBrowserCache, cdp.Empty{}),
				chromedp.Navigate(p.url+path),
			); err != nil {
				b.Fatal(err)
			}
			paint, err := chromedp.Run(ctx, chromedp.Evaluate[float64](
				`new Promise(found => new PerformanceObserver(list => found(list.getEntriesByName("first-contentful-paint")[0].startTime)).observe({ type: "paint", buffered: true }))`, chromedp.EvalAwaitPromise))
			if err != nil {
				b.Fatal(err)
			}
			paints = append(paints, paint)
		}
		slices.Sort(paints)
		b.ReportMetric(paints[paintLoads/2], "first-paint-ms")
	}
}

func measureBusy(b *testing.B, path string, feeds, rate int) {
	p := serveBenchmark(b)
	makeFeeds(b, p, feeds)
	publishSteadily(b, p, rate, "bench")
	ctx := browser(b)
	if err := chromedp.Do(ctx,
		command(page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: noteTasks}),
		command(performance.Enable, performance.EnableParams{TimeDomain: performance.EnableTimeDomainThreadTicks}),
		chromedp.Navigate(p.url+path),
		chromedp.WaitVisible(chromedp.CSS(`#status[data-state="live"]`)),
	); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		before := taskTime(b, ctx)
		time.Sleep(busyFor)
		b.ReportMetric(100*(taskTime(b, ctx)-before)/busyFor.Seconds(), "busy-%")
		longest, err := chromedp.Run(ctx, chromedp.Evaluate[float64](`Math.max(0, ...tasks)`))
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(longest, "longest-task-ms")
	}
}

// taskTime returns the seconds that the tasks of the page have taken.
func taskTime(b *testing.B, ctx context.Context) float64 {
	b.Helper()
	var spent float64
	if err := chromedp.Do(ctx, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		got, err := cdp.Call(ctx, target, performance.GetMetrics, cdp.Empty{})
		for _, metric := range got.Metrics {
			if metric.Name == "TaskDuration" {
				spent = metric.Value
			}
		}
		return err
	})); err != nil {
		b.Fatal(err)
	}
	return spent
}

// command is an action that calls a command of the browser.
func command[P, R any](call cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, call, params)
		return err
	})
}
