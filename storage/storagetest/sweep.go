package storagetest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Sweeping frees trimmed events, step by step, and nothing else.
func testSweep(t *testing.T, open Opener) {
	s := keep(t, open)
	if more, err := s.Sweep(t.Context(), 100, time.Hour); more || err != nil {
		t.Errorf("sweep an empty store: got %t, %v", more, err)
	}
	all := make(map[string][]feed.Event)
	for i, name := range []string{"a", "b", "c", "d"} {
		var ds []feed.Draft
		for n := range 300 {
			ds = append(ds, feed.Draft{Feed: name, Data: strings.Repeat("é", n%7*i) + "x"})
		}
		all[name] = publish(t, s, ds)
	}
	first := map[string]feed.ID{"a": 251, "b": 301, "c": 1, "d": 31}
	total, kept := int64(0), int64(0)
	for name, events := range all {
		total += dataBytes(events)
		kept += dataBytes(events[first[name]-1:])
		trim(t, s, name, first[name])
	}
	size := func() (n int64) {
		for _, info := range list(t, s, "", "", 10) {
			n += info.Bytes
		}
		return n
	}
	if got := size(); got != total {
		t.Errorf("before it is swept, the data has %d bytes, want %d", got, total)
	}
	const given, limit = 250 + 300 + 30, 20
	for steps, more := 1, true; more; steps++ {
		before := size()
		var err error
		if more, err = s.Sweep(t.Context(), limit, time.Hour); err != nil {
			t.Fatalf("sweep: %v", err)
		}
		if freed := before - size(); freed < 0 || freed > 2*limit*40 {
			t.Errorf("a step for about %d events of 40 bytes at most has freed %d bytes", limit, freed)
		}
		if !more && steps < given/limit/2 || steps > given {
			t.Fatalf("step %d of about %d: more is %t", steps, given/limit, more)
		}
		wantBounds(t, s, "b", feed.Bounds{First: 301, Last: 300})
	}
	if got := size(); got != kept {
		t.Errorf("having been swept, the data has %d bytes, want %d", got, kept)
	}
	for name, events := range all {
		wantKept(t, s, name, first[name], events)
		if got, want := bytesOf(t, s, name), dataBytes(events[first[name]-1:]); got != want {
			t.Errorf("feed %s has %d bytes, want %d", name, got, want)
		}
	}
	expectNext(t, s, "b", 301)
}

// expectNext publishes an event that must get this id.
func expectNext(t *testing.T, s feed.Store, name string, id feed.ID) {
	t.Helper()
	if e := publish(t, s, drafts(name, "next"))[0]; e.ID != id {
		t.Errorf("feed %s: the next event has id %d, want %d", name, e.ID, id)
	}
}

// A store that was closed between a trim and the end of its sweep continues the sweep.
func testSweepReopened(t *testing.T, open Opener) {
	k := asKeeper(t, open(t))
	all := publish(t, k, numbered("chat", 0, 300))
	trim(t, k, "chat", 201)
	for range 3 {
		if err := k.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		k = asKeeper(t, open(t))
		wantKept(t, k, "chat", 201, all)
		if more, err := k.Sweep(t.Context(), 10, time.Hour); !more || err != nil {
			t.Errorf("sweep: got %t, %v; want more", more, err)
		}
	}
	sweep(t, k, 10, time.Hour)
	if got, want := bytesOf(t, k, "chat"), dataBytes(all[200:]); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
	wantKept(t, k, "chat", 201, all)
	if err := k.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// Keys older than the window go, the others stay.
func testSweepKeys(t *testing.T, open Opener) {
	s := keep(t, open)
	old := make([]feed.Batch, 60)
	for i := range old {
		old[i] = keyed(fmt.Sprintf("old-%d", i), on(fmt.Sprintf("feed-%d", i%3), "x"))
		if i%2 == 0 {
			old[i] = keyed(fmt.Sprintf("old-%d", i), feed.Batch{Drafts: drafts("chat", "x")})
		}
	}
	first := appendAll(t, s, old...)
	sweep(t, s, 7, time.Hour)
	for i, b := range old {
		replay(t, s, b, first[i].Events)
	}
	// The young key may expire before the sweep ends. Then the test proves nothing, and
	// runs again with more time.
	for gap, conclusive := 50*time.Millisecond, false; !conclusive; gap *= 2 {
		began := appendAll(t, s, old...)[len(old)-1].Events[0].Time
		waitUntil(time.Now().Add(gap))
		young := keyed("young-"+gap.String(), on("chat", "x"))
		kept := store(t, s, young)
		window := (time.Since(began) - gap/2).Truncate(time.Millisecond)
		if steps := sweep(t, s, 7, window); steps < len(old)/7/2 {
			t.Errorf("%d steps for %d keys, 7 at a time", steps, len(old))
		}
		if conclusive = time.Since(kept[0].Time) < window; conclusive {
			replay(t, s, young, kept)
		}
		for i, r := range appendAll(t, s, old...) {
			if r.Err != nil || r.Replayed {
				t.Fatalf("key %d: got %v, replayed %t; want it swept", i, r.Err, r.Replayed)
			}
		}
	}
	for _, info := range list(t, s, "", "", 10) {
		if info.First != 1 {
			t.Errorf("feed %s lost events with the keys: %v", info.Feed, info.Bounds)
		}
	}
}
