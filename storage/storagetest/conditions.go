package storagetest

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rejoin/rejoin/feed"
)

var conditionTests = []test[Opener]{
	{"if last", testIfLast},
	{"if last, in one append", testIfLastInOneAppend},
	{"if last, many at once", testIfLastRace},
	{"close a feed", testCloseFeed},
	{"close an unwritten feed", testCloseUnwritten},
	{"close a feed, in one append", testCloseInOneAppend},
	{"close a feed, if last", testCloseIfLast},
	{"one of several feeds is closed", testOneClosed},
	{"chained batches", testChain},
}

// on returns a batch about one feed.
func on(name string, data ...string) feed.Batch {
	return feed.Batch{Feed: name, Drafts: drafts(name, data...)}
}

// ifLast returns the batch with that condition.
func ifLast(last feed.ID, b feed.Batch) feed.Batch {
	b.IfLast = &last
	return b
}

// closing returns the batch so that it closes its feed.
func closing(b feed.Batch) feed.Batch {
	b.Close = true
	return b
}

// appendAll appends the batches in one call, which must succeed. The events of batches
// that are not refused must match their drafts.
func appendAll(t *testing.T, s feed.Store, batches ...feed.Batch) []feed.Result {
	t.Helper()
	results, err := s.Append(t.Context(), batches)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	if len(results) != len(batches) {
		t.Fatalf("append: got %d results for %d batches", len(results), len(batches))
	}
	for i, r := range results {
		if r.Err != nil {
			if len(r.Events) != 0 || r.Replayed {
				t.Errorf("batch %d is refused, and has the result %v", i, r)
			}
		} else if err := answers(r.Events, batches[i].Drafts); err != nil {
			t.Fatalf("batch %d: %v", i, err)
		}
	}
	return results
}

// store appends a batch that must be stored, and returns its events.
func store(t *testing.T, s feed.Store, b feed.Batch) []feed.Event {
	t.Helper()
	r := appendAll(t, s, b)[0]
	if r.Err != nil || r.Replayed {
		t.Fatalf("append: got %v, replayed %t; want it stored", r.Err, r.Replayed)
	}
	return r.Events
}

// refuse appends a batch that must be refused with this error.
func refuse(t *testing.T, s feed.Store, b feed.Batch, want error) {
	t.Helper()
	wantRefusal(t, appendAll(t, s, b)[0], want)
}

func wantRefusal(t *testing.T, r feed.Result, want error) {
	t.Helper()
	last, ok := want.(*feed.LastError)
	if !ok {
		if !errors.Is(r.Err, want) {
			t.Errorf("got %v, want %v", r.Err, want)
		}
		return
	}
	if got, ok := errors.AsType[*feed.LastError](r.Err); !ok || got.Last != last.Last {
		t.Errorf("got %v, want %v", r.Err, want)
	}
}

// wantBounds checks the bounds of the feed that Bounds and Read return.
func wantBounds(t *testing.T, s feed.Store, name string, want feed.Bounds) {
	t.Helper()
	got, err := s.Bounds(t.Context(), []string{name})
	if err != nil || len(got) != 1 {
		t.Fatalf("bounds of %s: got %v, %v", name, got, err)
	}
	if got[0] != want {
		t.Errorf("feed %s: got bounds %v, want %v", name, got[0], want)
	}
	if page := read(t, s, name, 0, everything); page.Bounds != want {
		t.Errorf("feed %s: got bounds %v with a page, want %v", name, page.Bounds, want)
	}
}

func testIfLast(t *testing.T, open Opener) {
	s := start(t, open)
	refuse(t, s, ifLast(1, on("chat", "x")), &feed.LastError{Last: 0})
	refuse(t, s, ifLast(math.MaxUint64, on("chat", "x")), &feed.LastError{Last: 0})
	wantBounds(t, s, "chat", feed.Unwritten)
	want := store(t, s, ifLast(0, on("chat", "1")))
	refuse(t, s, ifLast(0, on("chat", "x")), &feed.LastError{Last: 1})
	refuse(t, s, ifLast(2, on("chat", "x")), &feed.LastError{Last: 1})
	want = append(want, store(t, s, ifLast(1, on("chat", "2", "3", "4")))...)
	for _, last := range []feed.ID{0, 1, 2, 3, 5, math.MaxInt64, math.MaxInt64 + 1, math.MaxUint64} {
		refuse(t, s, ifLast(last, on("chat", "x", "y")), &feed.LastError{Last: 4})
	}
	store(t, s, ifLast(0, on("news", "1"))) // a feed apart
	want = append(want, store(t, s, ifLast(4, on("chat", "5")))...)
	want = append(want, store(t, s, on("chat", "6"))...)
	want = append(want, store(t, s, ifLast(6, on("chat", "7")))...)
	expect(t, s, "chat", want)
}

func testIfLastInOneAppend(t *testing.T, open Opener) {
	s := start(t, open)
	results := appendAll(t, s,
		ifLast(0, on("chat", "1")),
		ifLast(0, on("chat", "x")),
		ifLast(1, on("chat", "2", "3")),
		ifLast(1, on("chat", "x")),
		ifLast(3, on("chat", "4")),
		ifLast(0, on("news", "1")),
		feed.Batch{Drafts: append(drafts("chat", "5"), drafts("news", "2")...)},
		ifLast(4, on("chat", "x")),
		ifLast(5, on("chat", "6")),
		ifLast(1, on("new", "x")),
	)
	var chat, news []feed.Event
	for i, r := range results {
		if last, ok := map[int]feed.ID{1: 1, 3: 3, 7: 5, 9: 0}[i]; ok {
			wantRefusal(t, r, &feed.LastError{Last: last})
		} else if r.Err != nil {
			t.Errorf("batch %d: %v", i, r.Err)
		}
		for _, e := range r.Events {
			if e.Feed == "chat" {
				chat = append(chat, e)
			} else {
				news = append(news, e)
			}
		}
	}
	expect(t, s, "chat", chat)
	expect(t, s, "news", news)
	wantBounds(t, s, "chat", feed.Bounds{First: 1, Last: 6})
	wantBounds(t, s, "news", feed.Bounds{First: 1, Last: 2})
	wantBounds(t, s, "new", feed.Unwritten)
}

func testIfLastRace(t *testing.T, open Opener) { raceIfLast(t, start(t, open)) }

// raceIfLast makes many writers compare and append until the feed has enough events.
// One writer wins each id, and the others learn a new last id.
func raceIfLast(t *testing.T, stores ...feed.Store) {
	const enough = 150
	told := newLedger()
	var writers sync.WaitGroup
	for w := range 8 {
		s := stores[w%len(stores)]
		writers.Go(func() {
			for last := feed.ID(0); last < enough; {
				b := ifLast(last, on("race", fmt.Sprintf("writer %d after %d", w, last)))
				results, err := s.Append(t.Context(), []feed.Batch{b})
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				if lost, ok := errors.AsType[*feed.LastError](results[0].Err); ok && lost.Last > last {
					last = lost.Last
					continue
				}
				if err := errors.Join(results[0].Err, answers(results[0].Events, b.Drafts), told.enter(results[0].Events)); err != nil {
					t.Errorf("append after %d: %v", last, err)
					return
				}
				if last++; results[0].Events[0].ID != last {
					t.Errorf("won id %d, want %d", results[0].Events[0].ID, last)
				}
			}
		})
	}
	writers.Wait()
	for _, s := range stores {
		told.checkAll(t, s, "race")
	}
}

func testCloseFeed(t *testing.T, open Opener) {
	s := open(t)
	chat := store(t, s, on("chat", "1", "2"))
	chat = append(chat, store(t, s, closing(on("chat", "3", "4")))...)
	store(t, s, closing(on("once", "1")))
	news := store(t, s, on("news", "1", "2"))
	store(t, s, closing(on("news")))
	closed := feed.Bounds{First: 1, Last: 4, Closed: true}
	check := func() {
		t.Helper()
		if diff := cmp.Diff(chat, read(t, s, "chat", 0, everything).Events); diff != "" {
			t.Errorf("a closed feed (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(news, read(t, s, "news", 0, everything).Events); diff != "" {
			t.Errorf("a closed feed (-want +got):\n%s", diff)
		}
		wantBounds(t, s, "chat", closed)
		wantBounds(t, s, "once", feed.Bounds{First: 1, Last: 1, Closed: true})
		wantBounds(t, s, "news", feed.Bounds{First: 1, Last: 2, Closed: true})
	}
	check()
	for range 2 {
		for _, name := range []string{"chat", "once", "news"} {
			refuse(t, s, on(name, "x"), feed.ErrClosed)
			refuse(t, s, feed.Batch{Drafts: drafts(name, "x")}, feed.ErrClosed)
			refuse(t, s, closing(on(name, "x")), feed.ErrClosed)
			store(t, s, closing(on(name)))
		}
		check()
		if err := s.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		s = open(t)
		check()
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func testCloseUnwritten(t *testing.T, open Opener) {
	s := keep(t, open)
	before := time.Now().Truncate(time.Millisecond)
	store(t, s, closing(on("never")))
	after := time.Now()
	closed := feed.Bounds{First: 1, Last: 0, Closed: true}
	wantBounds(t, s, "never", closed)
	refuse(t, s, on("never", "x"), feed.ErrClosed)
	store(t, s, closing(on("never")))
	refuse(t, s, ifLast(0, on("never", "x")), feed.ErrClosed)
	wantBounds(t, s, "never", closed)
	info := list(t, s, "", "", 10)
	if len(info) != 1 || info[0].Feed != "never" || info[0].Bounds != closed || info[0].Bytes != 0 {
		t.Fatalf("got the list %v, want the closed feed", info)
	}
	if at := info[0].Updated; at.Before(before) || at.After(after) || soundTime(at) != nil {
		t.Errorf("closed from %v to %v, and updated at %v", before, after, at)
	}
}

func testCloseInOneAppend(t *testing.T, open Opener) {
	s := start(t, open)
	results := appendAll(t, s,
		on("chat", "1"),
		closing(on("chat", "2")),
		on("chat", "x"),
		closing(on("chat")),
		closing(on("new")),
		on("new", "x"),
		on("news", "1"),
	)
	for i, r := range results {
		if i == 2 || i == 5 {
			wantRefusal(t, r, feed.ErrClosed)
		} else if r.Err != nil {
			t.Errorf("batch %d: %v", i, r.Err)
		}
	}
	wantBounds(t, s, "chat", feed.Bounds{First: 1, Last: 2, Closed: true})
	wantBounds(t, s, "new", feed.Bounds{First: 1, Last: 0, Closed: true})
	wantBounds(t, s, "news", feed.Bounds{First: 1, Last: 1})
}

// A close whose condition does not hold changes nothing. A closed feed answers every
// append of an event with ErrClosed, whatever its condition. A second close without
// an event succeeds if its condition holds.
func testCloseIfLast(t *testing.T, open Opener) {
	s := start(t, open)
	refuse(t, s, closing(ifLast(1, on("chat"))), &feed.LastError{Last: 0})
	wantBounds(t, s, "chat", feed.Unwritten)
	store(t, s, on("chat", "1"))
	refuse(t, s, closing(ifLast(0, on("chat", "x"))), &feed.LastError{Last: 1})
	refuse(t, s, closing(ifLast(2, on("chat"))), &feed.LastError{Last: 1})
	wantBounds(t, s, "chat", feed.Bounds{First: 1, Last: 1})
	store(t, s, closing(ifLast(1, on("chat", "2"))))
	for _, last := range []feed.ID{0, 2, 3} {
		refuse(t, s, ifLast(last, on("chat", "x")), feed.ErrClosed)
	}
	store(t, s, closing(ifLast(2, on("chat"))))
	refuse(t, s, closing(ifLast(1, on("chat"))), &feed.LastError{Last: 2})
	wantBounds(t, s, "chat", feed.Bounds{First: 1, Last: 2, Closed: true})
}

// A batch for several feeds is refused whole if one of them is closed; the other
// batches of the append are not.
func testOneClosed(t *testing.T, open Opener) {
	s := keep(t, open)
	store(t, s, closing(on("closed", "1")))
	several := func(names ...string) (b feed.Batch) {
		for _, name := range names {
			b.Drafts = append(b.Drafts, drafts(name, "x")...)
		}
		return b
	}
	results := appendAll(t, s,
		several("a", "b"),
		several("a", "closed", "b"),
		several("new", "a", "closed"),
		several("closed", "other"),
		several("b", "a"),
	)
	var a []feed.Event
	for i, r := range results {
		if i >= 1 && i <= 3 {
			wantRefusal(t, r, feed.ErrClosed)
			continue
		}
		if r.Err != nil {
			t.Errorf("batch %d: %v", i, r.Err)
		}
		for _, e := range r.Events {
			if e.Feed == "a" {
				a = append(a, e)
			}
		}
	}
	expect(t, s, "a", a)
	wantBounds(t, s, "a", feed.Bounds{First: 1, Last: 2})
	wantBounds(t, s, "b", feed.Bounds{First: 1, Last: 2})
	wantBounds(t, s, "new", feed.Unwritten)
	var names []string
	for _, info := range list(t, s, "", "", 10) {
		names = append(names, info.Feed)
	}
	if diff := cmp.Diff([]string{"a", "b", "closed"}, names); diff != "" {
		t.Errorf("the feeds that exist (-want +got):\n%s", diff)
	}
}

// chain returns the batches so that each follows the one before it.
func chain(batches ...feed.Batch) []feed.Batch {
	for i := range batches {
		batches[i].Follows, batches[i].NoWait = i > 0, true
	}
	return batches
}

func testChain(t *testing.T, open Opener) {
	s := start(t, open)
	one, two, three := keyed("1", on("chat", "a")), keyed("2", on("chat", "b")), keyed("3", on("chat", "c"))
	first := appendAll(t, s, chain(ifLast(0, one), ifLast(0, two))...)
	if first[0].Err != nil || first[1].Err != nil || first[1].Events[0].ID != 2 {
		t.Errorf("got %v, want 1 and 2", first)
	}
	// What is known counts first, and the chain goes on behind it.
	again := appendAll(t, s, chain(ifLast(0, one), ifLast(0, two), ifLast(0, three))...)
	if !again[0].Replayed || !again[1].Replayed || again[2].Replayed || again[2].Err != nil || again[2].Events[0].ID != 3 {
		t.Errorf("got %v, want 1 and 2 replayed, and 3", again)
	}
	// Nothing follows what is refused, and another batch is not concerned.
	store(t, s, on("chat", "other"))
	refused := appendAll(t, s, append(chain(ifLast(0, one), ifLast(0, keyed("4", on("chat", "d"))), ifLast(0, keyed("5", on("chat", "e")))), on("news", "x"))...)
	wantRefusal(t, refused[1], &feed.LastError{Last: 4})
	wantRefusal(t, refused[2], &feed.LastError{Last: 4})
	if !refused[0].Replayed || refused[3].Err != nil {
		t.Errorf("got %v", refused)
	}
	reused := appendAll(t, s, chain(keyed("1", on("chat", "not a")), keyed("6", on("chat", "f")))...)
	wantRefusal(t, reused[0], feed.ErrKeyReused)
	wantRefusal(t, reused[1], feed.ErrKeyReused)
	wantBounds(t, s, "chat", feed.Bounds{First: 1, Last: 4})
}
