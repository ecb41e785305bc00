package e2e

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/rejoin/rejoin/feed"
)

// manyRaw follows many feeds with nothing but bytes.
type manyRaw struct {
	source *eventSource

	mu     sync.Mutex
	events map[string][]string
	total  int
	faults []string
	open   []string // the data of each feed.open

	closed  map[string]int // how often each was said to be closed
	gaps    []string
	cursors int // blocks that show where a feed stands, and no event
}

func newManyRaw(url func() string) *manyRaw {
	r := &manyRaw{events: make(map[string][]string), closed: make(map[string]int)}
	r.source = &eventSource{url: url, take: r.take}
	return r
}

func followManyRaw(t *testing.T, url string) manyFollower {
	r := newManyRaw(always(url))
	r.source.start(t)
	awaitOpen(t, func() bool { return r.opens() > 0 })
	return r
}

func awaitOpen(t *testing.T, open func() bool) {
	t.Helper()
	awaitThat(t, "the stream opens", open)
}

func awaitThat(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come to it that %s", what)
		}
		time.Sleep(5 * time.Millisecond) // until it has come to that
	}
}

// take holds each block to what came before it.
func (r *manyRaw) take(b rawBlock) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch b.kind {
	case "feed.open":
		r.open = append(r.open, b.data)
		r.opened(b)
	case "feed.gap":
		r.gaps = append(r.gaps, b.data)
		r.gap(b)
	case "feed.cursor":
		r.cursors++
	case "feed.closed":
		var closed struct {
			Feed string
			Last int
		}
		r.parse(b, &closed)
		r.closed[closed.Feed]++
		if closed.Last != len(r.events[closed.Feed]) || !hasCursor(b.id, closed.Feed, strconv.Itoa(closed.Last)) {
			r.fault(b, "closed, and the subscriber has %d", len(r.events[closed.Feed]))
		}
	default:
		r.event(b)
	}
}

func (r *manyRaw) parse(b rawBlock, v any) {
	if err := json.Unmarshal([]byte(b.data), v); err != nil {
		r.fault(b, "%v", err)
	}
}

func (r *manyRaw) fault(b rawBlock, format string, args ...any) {
	r.faults = append(r.faults, fmt.Sprintf("connection %d, after %d events: ", len(r.open), r.total)+
		fmt.Sprintf(format, args...)+fmt.Sprintf("\nin the block %.100q, data %.300q, id %q", b.kind, b.data, b.id))
}

// opened demands of the greeting that it goes on where the last block ended. A
// feed that is new to the subscriber is put where it likes.
func (r *manyRaw) opened(b rawBlock) {
	var greeting struct {
		Feeds []struct{ Feed, Cursor string }
	}
	r.parse(b, &greeting)
	for _, f := range greeting.Feeds {
		events, known := r.events[f.Feed]
		if known && f.Cursor != strconv.Itoa(len(events)) {
			r.fault(b, "%s goes on after %s, and the subscriber has %d", f.Feed, f.Cursor, len(events))
		}
		if !known {
			n, err := strconv.Atoi(f.Cursor)
			if err != nil {
				r.fault(b, "%v", err)
			}
			r.events[f.Feed] = make([]string, n) // what it did not ask for
		}
		if !hasCursor(b.id, f.Feed, f.Cursor) {
			r.fault(b, "the cursor of %s is not in the id", f.Feed)
		}
	}
}

// gap goes on where the gap says.
func (r *manyRaw) gap(b rawBlock) {
	var g struct {
		Feed, After string
		Resumes     int
	}
	r.parse(b, &g)
	have := len(r.events[g.Feed])
	if g.After != strconv.Itoa(have) || g.Resumes <= have+1 || !hasCursor(b.id, g.Feed, strconv.Itoa(g.Resumes-1)) {
		r.fault(b, "a gap, and the subscriber has %d", have)
		return
	}
	r.events[g.Feed] = append(r.events[g.Feed], make([]string, g.Resumes-1-have)...)
}

func (r *manyRaw) event(b rawBlock) {
	var e wireEvent
	r.parse(b, &e)
	if want := len(r.events[e.Feed]) + 1; e.ID != feed.ID(want) {
		r.fault(b, "event %d of %s, want %d", e.ID, e.Feed, want)
	}
	if e.Type != b.kind && (e.Type != "message" || b.kind != "") {
		r.fault(b, "the type %q in a block of the type %q", e.Type, b.kind)
	}
	if !hasCursor(b.id, e.Feed, e.ID.String()) {
		r.fault(b, "the id does not say %s=%d", e.Feed, e.ID)
	}
	r.events[e.Feed] = append(r.events[e.Feed], b.data)
	r.total++
}

func hasCursor(all, name, cursor string) bool {
	return strings.Contains(","+all+",", ","+name+"="+cursor+",")
}

func (r *manyRaw) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

func (r *manyRaw) opens() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

func (r *manyRaw) seen() (map[string][]string, []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	faults := r.faults
	for _, gap := range r.gaps {
		faults = append(faults, "a gap "+gap)
	}
	return r.events, faults
}

func (r *manyRaw) String() string { return r.source.String() }

// manyChromium follows many feeds with the browser's own EventSource: one, for
// the whole test.
type manyChromium struct {
	t   *testing.T
	run func(script string) string
}

func followManyWithChromium(t *testing.T, url string) manyFollower {
	ctx := browser(t)
	origin, _, _ := strings.Cut(url, "/v1/")
	if err := chromedp.Do(ctx,
		chromedp.Navigate(origin+"/healthz"),
		chromedp.Evaluate[chromedp.Void](fmt.Sprintf(`
			window.events = {}; window.total = 0; window.faults = []; window.opens = 0;
			window.source = new EventSource(%q);
			const fault = (what, e) => faults.push(what + ", on connection " + opens + ": " + e.data.slice(0, 300) + " id " + e.lastEventId);
			const has = (e, feed, cursor) => ("," + e.lastEventId + ",").includes("," + feed + "=" + cursor + ",");
			const take = e => {
				const {feed, id} = JSON.parse(e.data);
				const all = events[feed] ??= [];
				all.push(e.data);
				total++;
				if (id !== all.length) fault("want " + all.length, e);
				if (!has(e, feed, id)) fault("the id does not say so", e);
			};
			source.onmessage = take;
			source.addEventListener("note", take);
			source.addEventListener("feed.gap", e => fault("a gap", e));
			source.addEventListener("feed.open", e => {
				opens++;
				for (const {feed, cursor} of JSON.parse(e.data).feeds)
					if (cursor !== String((events[feed] ?? []).length) || !has(e, feed, cursor)) fault(feed + " has a wrong cursor", e);
			});`, url)),
	); err != nil {
		t.Fatal(err)
	}
	f := &manyChromium{t: t, run: func(script string) string {
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](script))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}}
	awaitOpen(t, func() bool { return f.run(`String(opens)`) != "0" })
	return f
}

func (f *manyChromium) count() int {
	n, err := strconv.Atoi(f.run(`String(total)`))
	if err != nil {
		f.t.Fatal(err)
	}
	return n
}

func (f *manyChromium) seen() (events map[string][]string, faults []string) {
	if err := json.Unmarshal([]byte(f.run(`JSON.stringify([events, faults])`)), &[]any{&events, &faults}); err != nil {
		f.t.Fatal(err)
	}
	return events, faults
}

func (f *manyChromium) String() string {
	return f.run(`opens + " connections, state " + source.readyState`)
}
