package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

var screens = flag.String("screens", "", "a directory for pictures of the console in every state, width and theme; without, TestConsoleScreens looks only at states that no other test has")

// noteFaults runs before a page does, and notes what goes wrong in it.
const noteFaults = `
globalThis.faults = [];
addEventListener("error", event => faults.push("error: " + (event.message ?? event.target)));
addEventListener("unhandledrejection", event => faults.push("rejected: " + event.reason));
addEventListener("securitypolicyviolation", event => faults.push("policy: " + event.violatedDirective + " " + event.blockedURI));`

// pastEdge lists visible texts and controls of which a part lies beyond the left or the
// right edge of the window.
const pastEdge = `[...document.body.querySelectorAll("*")].filter(el => {
  if (!el.checkVisibility() || el.closest(".hidden, svg")) return false;
  for (let up = el.parentElement; up; up = up.parentElement) if (getComputedStyle(up).overflowX !== "visible") return false;
  const { left, right, width } = el.getBoundingClientRect();
  return width > 1 && (left < -1 || right > innerWidth + 1);
}).concat([...document.querySelectorAll("main, #events, .data, #notice, dialog")].filter(el => el.scrollWidth > el.clientWidth + 1))
  .map(el => el.tagName + "#" + el.id + "." + el.className).join()`

// TestConsoleScreens brings the pages of the console to their states, and demands of each,
// on narrow and on wide screens, that nothing is cut off or lies over anything else, that
// no script fails, and that axe-core finds no fault. With -screens it has all states, and
// makes pictures of them for people to judge.
func TestConsoleScreens(t *testing.T) {
	t.Parallel()
	limit := 9 * time.Minute
	if *screens != "" {
		limit = 30 * time.Minute
		if err := os.MkdirAll(*screens, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := &stage{t: t, ctx: browserFor(t, limit, chromedp.Flag("force-prefers-reduced-motion", true))}
	s.open = s.serve()
	s.guarded = s.serve("REJOIN_AUTH_MODE=jwt", "REJOIN_AUTH_JWT_KEY="+tokenSecret)
	s.do(command(page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: noteFaults}))
	for _, state := range consoleStates {
		if *screens == "" && !state.always {
			continue
		}
		t.Run(state.name, func(t *testing.T) {
			s.t = t
			s.do(chromedp.EmulateViewport(1440, 900), chromedp.Navigate("about:blank"))
			state.show(s)
			s.look(state.name)
		})
	}
}

// atEnd is whether the list of events is at its end, where it follows the feed.
const atEnd = `(list => list !== null && list.scrollHeight - list.clientHeight - list.scrollTop < 2 && document.getElementById("newest").hidden)(document.getElementById("events"))`

// look checks the page as it is on every screen. A list that is at its end stays there.
func (s *stage) look(name string) {
	s.t.Helper()
	type size struct{ width, height int64 }
	sizes, themes := []size{{360, 640}, {1440, 900}}, []string{"light"}
	if *screens != "" {
		sizes, themes = []size{{360, 640}, {390, 844}, {768, 1024}, {992, 744}, {1440, 900}}, []string{"light", "dark"}
	}
	following := s.ask("String("+atEnd+")") == "true"
	for _, theme := range themes {
		if following { // axe-core scrolls what it looks at
			s.do(script(`document.getElementById("newest").click()`))
		}
		for _, size := range sizes {
			s.do(
				script(`document.documentElement.dataset.theme = %q; document.activeElement?.blur()`, theme),
				chromedp.EmulateViewport(size.width, size.height),
			)
			if following {
				s.await(atEnd)
			}
			lies := layoutOf(s.t, s.ctx)
			if edge := s.ask(pastEdge); edge != "" || lies.Wide > 0 || len(lies.Found) > 0 {
				s.t.Errorf("%s at %d px: %.0f px too wide, past the edge %s; overlapping are %q", name, size.width, lies.Wide, edge, lies.Found)
			}
			if *screens != "" {
				s.takePicture(fmt.Sprintf("%s-%d-%s.png", name, size.width, theme))
			}
		}
		checkAccess(s.t, s.ctx, name, theme)
	}
	if faults := s.ask(`faults.join("; ")`); faults != "" {
		s.t.Errorf("%s: %s", name, faults)
	}
}

func (s *stage) takePicture(name string) {
	s.t.Helper()
	// The browser leaves out rows that are below the window.
	s.do(script(`const sheet = new CSSStyleSheet(); sheet.replaceSync("#events .event { content-visibility: visible }"); document.adoptedStyleSheets = [sheet]`))
	defer s.do(script(`document.adoptedStyleSheets = []`))
	picture, err := chromedp.Run(s.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screens, name), picture, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// stage is a tab, and the servers whose pages it shows.
type stage struct {
	t             *testing.T
	ctx           context.Context
	open, guarded *process
}

func (s *stage) do(steps ...chromedp.Action[chromedp.Void]) {
	s.t.Helper()
	if err := chromedp.Do(s.ctx, steps...); err != nil {
		s.t.Fatalf("%v; the page says %q", err, s.text())
	}
}

func (s *stage) text() string {
	text, _ := chromedp.Run(s.ctx, chromedp.Evaluate[string](`document.querySelector("main")?.innerText ?? ""`))
	return text
}

// ask returns the text that an expression has in the page.
func (s *stage) ask(expression string) string {
	s.t.Helper()
	text, err := chromedp.Run(s.ctx, chromedp.Evaluate[string](expression))
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

func (s *stage) await(expression string) {
	s.t.Helper()
	awaitTrue(s.t, s.ctx, expression)
}

// serve starts a server for one state.
func (s *stage) serve(env ...string) *process {
	s.t.Helper()
	return serve(s.t, built(s.t, false), filepath.Join(s.t.TempDir(), "rejoin.db"), env...)
}
