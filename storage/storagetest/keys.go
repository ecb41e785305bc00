package storagetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rejoin/rejoin/feed"
)

var keyTests = []test[Opener]{
	{"a key replays", testKey},
	{"keys have their spaces", testKeySpaces},
	{"keys differ", testKeyNames},
	{"a key for several feeds", testKeySeveralFeeds},
	{"a refused batch leaves no key", testKeyRefused},
	{"a key several times in one append", testKeyInOneAppend},
	{"a key comes before all else", testKeyFirst},
	{"a key gets old", testKeyWindow},
	{"a key many times at once", testKeyRace},
	{"keys survive", testKeySurvives},
}

// keyed returns the batch with a key that is remembered for long.
func keyed(name string, b feed.Batch) feed.Batch {
	return keyedFor(time.Hour, name, b)
}

func keyedFor(window time.Duration, name string, b feed.Batch) feed.Batch {
	print := sha256.Sum256(fmt.Appendf(nil, "%t %#v", b.Close, b.Drafts))
	b.Key = &feed.Key{Name: name, Fingerprint: print, Window: window}
	return b
}

// replay appends a batch whose key is known: nothing is stored, and the answer is the
// same as the first time.
func replay(t *testing.T, s feed.Store, b feed.Batch, want []feed.Event) {
	t.Helper()
	wantReplay(t, appendAll(t, s, b)[0], want)
}

func wantReplay(t *testing.T, r feed.Result, want []feed.Event) {
	t.Helper()
	if r.Err != nil || !r.Replayed {
		t.Errorf("got %v, replayed %t; want the answer of the first time", r.Err, r.Replayed)
	}
	if diff := cmp.Diff(want, r.Events, sameEmpty); diff != "" {
		t.Errorf("another answer than the first time (-first +now):\n%s", diff)
	}
}

func testKey(t *testing.T, open Opener) {
	s := start(t, open)
	b := keyed("k", feed.Batch{Feed: "chat", Drafts: []feed.Draft{
		{Feed: "chat", Data: "text\nof lines"},
		{Feed: "chat", Type: "a.type", Data: `{"b": 1,  "a":2}`, JSON: true},
		{Feed: "chat"},
	}})
	want := store(t, s, on("chat", "before"))
	first := store(t, s, b)
	replay(t, s, b, first)
	want = append(want, first...)
	want = append(want, store(t, s, on("chat", "after"))...)
	waitUntil(first[0].Time.Add(2 * time.Millisecond)) // a replay has the time of the first, too
	for range 3 {
		replay(t, s, b, first)
		refuse(t, s, keyed("k", on("chat", "other")), feed.ErrKeyReused)
		refuse(t, s, keyed("k", closing(b)), feed.ErrKeyReused)
	}
	want = append(want, store(t, s, on("chat", "end"))...)
	expect(t, s, "chat", want)
	second := store(t, s, keyed("k2", feed.Batch{Feed: "chat", Drafts: b.Drafts}))
	expect(t, s, "chat", append(want, second...))
}

// Each feed has its keys, and the batches without a feed have theirs.
func testKeySpaces(t *testing.T, open Opener) {
	s := start(t, open)
	batches := []feed.Batch{
		keyed("k", on("a", "x")),
		keyed("k", on("b", "x")),
		keyed("k", feed.Batch{Drafts: drafts("a", "x")}),
	}
	var first [][]feed.Event
	for _, b := range batches {
		first = append(first, store(t, s, b))
	}
	for i, b := range batches {
		replay(t, s, b, first[i])
	}
	refuse(t, s, keyed("k", feed.Batch{Drafts: drafts("b", "x")}), feed.ErrKeyReused)
	expect(t, s, "a", append(first[0], first[2]...))
	expect(t, s, "b", first[1])
}

// Keys are compared byte by byte.
func testKeyNames(t *testing.T, open Opener) {
	s := start(t, open)
	longest := strings.Repeat("k", 255)
	names := []string{
		"k", "K", "k1", "k_", "k%", "%", "_", "1", "01", "1.0", "null", "NULL", "'", "''", `"`, `\`, `\\`, `\x00`,
		"$1", "?", "{}", "~", "!", longest, longest[:254],
	}
	var first [][]feed.Event
	for _, name := range names {
		first = append(first, store(t, s, keyed(name, on("chat", name))))
	}
	for i, name := range names {
		replay(t, s, keyed(name, on("chat", name)), first[i])
	}
	expect(t, s, "chat", slices.Concat(first...))
}

func testKeySeveralFeeds(t *testing.T, open Opener) {
	s := start(t, open)
	store(t, s, on("a", "1", "2", "3"))
	small := keyed("small", feed.Batch{Drafts: slices.Concat(
		drafts("b", "1"), drafts("a", "4", "5"), drafts("b", "2"), drafts("a", "6"), drafts("c", "1"))})
	var large feed.Batch
	for i := range 1000 {
		large.Drafts = append(large.Drafts, drafts(fmt.Sprintf("feed-%d", i%300), fmt.Sprint(i))...)
	}
	large = keyed("large", large)
	firstSmall := store(t, s, small)
	store(t, s, feed.Batch{Drafts: slices.Concat(drafts("a", "x"), drafts("feed-7", "x"), drafts("c", "x"))})
	firstLarge := store(t, s, large)
	waitUntil(firstLarge[0].Time.Add(2 * time.Millisecond))
	store(t, s, feed.Batch{Drafts: slices.Concat(drafts("b", "y"), drafts("feed-7", "y"))})
	replay(t, s, small, firstSmall)
	replay(t, s, large, firstLarge)
	for _, e := range slices.Concat(firstSmall, firstLarge) {
		if got := read(t, s, e.Feed, e.ID-1, feed.Limit{Events: 1, Bytes: 1}).Events; len(got) != 1 || !sameEvent(got[0], e) {
			t.Fatalf("answered %v, and stored %v", e, got)
		}
	}
}

// A refused batch uses up no id. It can come again, and another batch can have its
// key.
func testKeyRefused(t *testing.T, open Opener) {
	s := start(t, open)
	store(t, s, closing(on("closed", "1")))
	chat := store(t, s, on("chat", "1"))
	refuse(t, s, keyed("k", ifLast(0, on("chat", "x"))), &feed.LastError{Last: 1})
	refuse(t, s, keyed("k", ifLast(0, on("chat", "x"))), &feed.LastError{Last: 1})
	other := keyed("k", on("chat", "other"))
	first := store(t, s, other)
	refuse(t, s, keyed("k", on("chat", "x")), feed.ErrKeyReused)
	replay(t, s, other, first)
	chat = append(chat, first...)

	several := keyed("k", feed.Batch{Drafts: append(drafts("chat", "x"), drafts("closed", "x")...)})
	refuse(t, s, several, feed.ErrClosed)
	refuse(t, s, several, feed.ErrClosed)
	first = store(t, s, keyed("k", feed.Batch{Drafts: drafts("chat", "x")}))
	refuse(t, s, several, feed.ErrKeyReused)
	chat = append(chat, first...)

	// A feed without events.
	refuse(t, s, keyed("k", ifLast(7, on("new", "x"))), &feed.LastError{Last: 0})
	wantBounds(t, s, "new", feed.Unwritten)
	first = store(t, s, keyed("k", on("new", "1")))
	replay(t, s, keyed("k", on("new", "1")), first)
	expect(t, s, "new", first)
	expect(t, s, "chat", chat)
}

func testKeyInOneAppend(t *testing.T, open Opener) {
	s := start(t, open)
	b := keyed("k", on("chat", "1", "2"))
	several := keyed("k", feed.Batch{Drafts: append(drafts("chat", "4"), drafts("news", "1")...)})
	results := appendAll(t, s,
		keyed("k", ifLast(9, on("chat", "x"))), // refused: the key is free
		b,
		b,
		keyed("k", on("chat", "x")),
		on("chat", "3"),
		several,
		b,
		several,
		keyed("k2", ifLast(4, on("chat", "5"))),
		keyed("k2", ifLast(4, on("chat", "5"))),
	)
	wantRefusal(t, results[0], &feed.LastError{Last: 0})
	wantRefusal(t, results[3], feed.ErrKeyReused)
	for i, first := range map[int]int{2: 1, 6: 1, 7: 5, 9: 8} {
		wantReplay(t, results[i], results[first].Events)
	}
	for _, i := range []int{1, 4, 5, 8} {
		if results[i].Err != nil || results[i].Replayed {
			t.Errorf("batch %d: got %v, replayed %t; want it stored", i, results[i].Err, results[i].Replayed)
		}
	}
	expect(t, s, "chat", slices.Concat(results[1].Events, results[4].Events, results[5].Events[:1], results[8].Events))
	expect(t, s, "news", results[5].Events[1:])
	replay(t, s, b, results[1].Events)
}

// A known key decides, even if the batch is refused without it.
func testKeyFirst(t *testing.T, open Opener) {
	s := start(t, open)
	first := keyed("first", ifLast(0, on("chat", "1")))
	one := store(t, s, first)
	replay(t, s, first, one)
	refuse(t, s, keyed("first", ifLast(7, on("chat", "x"))), feed.ErrKeyReused)
	end := keyed("end", closing(on("chat", "2")))
	two := store(t, s, end)
	replay(t, s, end, two)
	replay(t, s, first, one)
	refuse(t, s, keyed("first", on("chat", "x")), feed.ErrKeyReused)
	refuse(t, s, keyed("end", on("chat", "2")), feed.ErrKeyReused)
	refuse(t, s, keyed("new", on("chat", "x")), feed.ErrClosed)

	empty := keyed("empty", closing(on("never")))
	store(t, s, empty)
	replay(t, s, empty, nil)
	refuse(t, s, keyed("empty", closing(on("never", "x"))), feed.ErrKeyReused)

	several := keyed("several", feed.Batch{Drafts: append(drafts("a", "1"), drafts("b", "1")...)})
	events := store(t, s, several)
	store(t, s, closing(on("b")))
	replay(t, s, several, events)
	wantBounds(t, s, "chat", feed.Bounds{First: 1, Last: 2, Closed: true})
	wantBounds(t, s, "never", feed.Bounds{First: 1, Last: 0, Closed: true})
	wantBounds(t, s, "a", feed.Bounds{First: 1, Last: 1})
}

// A key that is older than the window counts as a new one, with a time of its own.
func testKeyWindow(t *testing.T, open Opener) {
	s := start(t, open)
	const window = 20 * time.Millisecond
	const pause = 20 * window
	batches := []feed.Batch{on("chat", "x"), {Drafts: append(drafts("chat", "x"), drafts("news", "x")...)}}
	for _, b := range batches {
		first := store(t, s, keyed("k", b))
		waitUntil(first[0].Time.Add(pause))
		replay(t, s, keyed("k", b), first)
		second := store(t, s, keyedFor(window, "k", b))
		replay(t, s, keyedFor(pause, "k", b), second) // the first is too old for that
		waitUntil(second[0].Time.Add(2 * window))
		other := b
		other.Drafts = append(slices.Clone(b.Drafts), drafts("chat", "y")...)
		third := store(t, s, keyedFor(window, "k", other))
		replay(t, s, keyed("k", other), third)
		refuse(t, s, keyed("k", b), feed.ErrKeyReused)
	}
	wantBounds(t, s, "chat", feed.Bounds{First: 1, Last: 8})
	wantBounds(t, s, "news", feed.Bounds{First: 1, Last: 3})
}

func testKeyRace(t *testing.T, open Opener) { raceKey(t, start(t, open)) }

// raceKey makes many publishers append the same batch at once. It is stored once, and
// all get the same answer. Half of the calls also have another batch.
func raceKey(t *testing.T, stores ...feed.Store) {
	several := feed.Batch{Drafts: slices.Concat(drafts("b", "1"), drafts("a", "1"), drafts("b", "2"))}
	for i, b := range []feed.Batch{on("chat", "1", "2"), several, closing(on("end", "1")), on("chat", "3")} {
		const calls = 100
		b = keyed(fmt.Sprintf("key-%d", i), b)
		answers := make([]feed.Result, calls)
		var publishers sync.WaitGroup
		for c := range calls {
			s := stores[c%len(stores)]
			publishers.Go(func() {
				batches := []feed.Batch{on("noise", "x"), b}
				results, err := s.Append(t.Context(), batches[c%2:])
				if err != nil {
					answers[c].Err = err
					return
				}
				answers[c] = results[len(results)-1]
			})
		}
		publishers.Wait()
		stored := 0
		for _, r := range answers {
			if r.Err != nil {
				t.Fatalf("append: %v", r.Err)
			}
			if !r.Replayed {
				stored++
			}
			if diff := cmp.Diff(answers[0].Events, r.Events); diff != "" {
				t.Fatalf("two answers for one key:\n%s", diff)
			}
		}
		if stored != 1 {
			t.Errorf("%d of the answers are not replayed, want 1", stored)
		}
	}
	for _, s := range stores {
		wantBounds(t, s, "chat", feed.Bounds{First: 1, Last: 3})
		wantBounds(t, s, "a", feed.Bounds{First: 1, Last: 1})
		wantBounds(t, s, "b", feed.Bounds{First: 1, Last: 2})
		wantBounds(t, s, "end", feed.Bounds{First: 1, Last: 1, Closed: true})
		wantBounds(t, s, "noise", feed.Bounds{First: 1, Last: 200})
	}
}

// A key survives a close of the store, and the trimming of its events.
func testKeySurvives(t *testing.T, open Opener) {
	s := open(t)
	one := keyed("k", closing(on("chat", "1", "2")))
	several := keyed("k", feed.Batch{Drafts: append(drafts("a", "1"), drafts("b", "1")...)})
	first, second := store(t, s, one), store(t, s, several)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		s = open(t)
		replay(t, s, one, first)
		replay(t, s, several, second)
		refuse(t, s, keyed("k", on("chat", "1", "2")), feed.ErrKeyReused)
		k := asKeeper(t, s)
		err := errors.Join(k.Trim(t.Context(), "chat", 3), k.Trim(t.Context(), "a", 2))
		if err != nil {
			t.Fatalf("trim: %v", err)
		}
		sweep(t, k, 100, time.Hour)
		replay(t, s, one, first)
		replay(t, s, several, second)
	}
	wantBounds(t, s, "chat", feed.Bounds{First: 3, Last: 2, Closed: true})
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}
