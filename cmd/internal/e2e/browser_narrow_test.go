package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/rejoin/rejoin/feed"
)

// overlapping lists pairs of visible texts and controls that lie over each
// other on the page, neither of them within the other, as far as their
// scrolling boxes show them.
const overlapping = `(() => {
  const page = document.querySelector("dialog[open]") ?? document.body;
  // A text that wraps has a box for each line.
  const shown = el => {
    const style = getComputedStyle(el);
    if (!el.checkVisibility() || style.visibility === "hidden" || el.closest(".hidden") || el.tagName === "OPTION") return [];
    let clip = { left: -Infinity, top: -Infinity, right: Infinity, bottom: Infinity };
    for (let up = el.parentElement; up; up = up.parentElement) {
      if (getComputedStyle(up).overflowY !== "visible") clip = both(clip, up.getBoundingClientRect());
    }
    return [...el.getClientRects()].map(box => both(clip, box)).filter(box => box.right - box.left > 1 && box.bottom - box.top > 1);
  };
  const both = (x, y) => ({ left: Math.max(x.left, y.left), top: Math.max(x.top, y.top), right: Math.min(x.right, y.right), bottom: Math.min(x.bottom, y.bottom) });
  const meet = (x, y) => Math.min(x.right, y.right) - Math.max(x.left, y.left) > 1 && Math.min(x.bottom, y.bottom) - Math.max(x.top, y.top) > 1;
  const all = [];
  for (const el of page.querySelectorAll("*")) {
    const texts = [...el.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.textContent.trim());
    if (!texts && !["INPUT", "TEXTAREA", "SELECT", "BUTTON"].includes(el.tagName)) continue;
    if (getComputedStyle(el).opacity === "0" || el.id === "newest") continue; // which floats
    const boxes = shown(el);
    if (boxes.length > 0) all.push([el, boxes]);
  }
  const name = el => el.tagName.toLowerCase() + (el.id ? "#" + el.id : "." + el.className) + " " + el.textContent.trim().slice(0, 30);
  const found = [];
  for (const [i, [a, xs]] of all.entries()) for (const [b, ys] of all.slice(i + 1)) {
    if (xs.some(x => ys.some(y => meet(x, y))) && !a.contains(b) && !b.contains(a)) found.push(name(a) + " over " + name(b));
  }
  const publish = document.getElementById("publish-send")?.getBoundingClientRect() ?? { bottom: -scrollY, right: 0 };
  return JSON.stringify({ found, wide: document.documentElement.scrollWidth - innerWidth, publish: publish.bottom + scrollY, right: publish.right });
})()`

// overview stands for the page that has no feed of its own.
const overview = "the overview"

// layout is how a page lies on the screen.
type layout struct {
	Found   []string
	Wide    float64 // how far it goes beyond the right edge
	Publish float64 // how far down the control to publish ends
	Right   float64 // and how far to the right
}

// TestConsoleNarrow: on a telephone, with many events, nothing lies over
// anything else, nothing has to be scrolled sideways, and publishing is at hand.
func TestConsoleNarrow(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	ctx := browser(t)
	const other = "a-feed-with-quite-a-long-name.of-some-kind"
	for _, feeds := range []string{"orders", "orders," + other} {
		if err := chromedp.Do(ctx,
			chromedp.Navigate("about:blank"),
			chromedp.Navigate(p.url+"/feeds/"+feeds),
			chromedp.WaitVisible(chromedp.CSS(`#status[data-state="live"]`)),
		); err != nil {
			t.Fatal(err)
		}
		last := publishForLayout(t, p.url, "orders", other)
		if err := chromedp.Do(ctx, chromedp.WaitReady(chromedp.CSS(fmt.Sprintf(`#events [data-id="%d"]`, last)))); err != nil {
			t.Fatal(err)
		}
		for _, screen := range []struct{ width, height int64 }{{360, 640}, {390, 844}, {768, 1024}, {992, 744}, {993, 744}, {1440, 900}} {
			if err := chromedp.Do(ctx, chromedp.EmulateViewport(screen.width, screen.height)); err != nil {
				t.Fatal(err)
			}
			checkLayout(t, ctx, feeds, float64(screen.width), float64(screen.height))
		}
		checkAccess(t, ctx, feeds, map[bool]string{false: "light", true: "dark"}[strings.Contains(feeds, ",")])
	}
	if err := chromedp.Do(ctx,
		chromedp.Navigate(p.url),
		chromedp.WaitVisible(chromedp.CSS(`#feeds-list [href$="/feeds/orders"]`)),
	); err != nil {
		t.Fatal(err)
	}
	checkAccess(t, ctx, overview, "dark")
}

// accessFaults lists what axe-core finds wrong in a theme, after the transition
// to it.
const accessFaults = `(async theme => {
  document.documentElement.dataset.theme = theme
  await Promise.all(document.getAnimations().map(one => one.finished.catch(() => {})))
  const { violations } = await axe.run(document, { resultTypes: ["violations"] })
  return violations.map(({ id, nodes }) => id + " at " + nodes.map(node => node.target.join(" ")).join(", ")).join("\n")
})(%q)`

// checkAccess looks for what keeps people with a screen reader, a keyboard or
// weak eyes from using the page.
func checkAccess(t *testing.T, ctx context.Context, page, theme string) {
	t.Helper()
	axe, err := os.ReadFile(filepath.Join(nodeDir(t), "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void](string(axe)+";undefined")); err != nil {
		t.Fatal(err)
	}
	found, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf(accessFaults, theme), chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	if found != "" {
		t.Errorf("%s, %s: %s", page, theme, found)
	}
}

func layoutOf(t *testing.T, ctx context.Context) (page layout) {
	t.Helper()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](overlapping))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(text), &page); err != nil {
		t.Fatal(err)
	}
	return page
}

func checkLayout(t *testing.T, ctx context.Context, feeds string, width, height float64) {
	t.Helper()
	page := layoutOf(t, ctx)
	if len(page.Found) > 0 || page.Wide > 0 || page.Right > width || page.Publish > 2*height {
		t.Errorf("%s at %.0f px: %.0f px too wide, Publish ends at %.0f, %.0f; overlapping are %q", feeds, width, page.Wide, page.Right, page.Publish, page.Found)
	}
}

// publishForLayout publishes events of all shapes to the feeds, and returns the
// id of the last.
func publishForLayout(t *testing.T, server string, feeds ...string) (last feed.ID) {
	t.Helper()
	for i := range 30 {
		data := fmt.Sprintf(`{"order":%d,"state":"paid","note":"to be wrapped, and delivered in the morning"}`, i)
		if i%5 == 0 {
			data = strings.Repeat("unbroken", 20)
		}
		kind := []string{"", "?type=order.placed", "?type=order.a-type-with-a-rather-long-name"}[i%3]
		for _, name := range feeds {
			resp, err := http.Post(server+"/v1/feeds/"+name+"/events"+kind, "text/plain", strings.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			var answer struct{ ID feed.ID }
			if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			last = answer.ID
		}
	}
	return last
}
