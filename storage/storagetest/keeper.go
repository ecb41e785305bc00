package storagetest

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rejoin/rejoin/feed"
)

var keeperTests = []test[Opener]{
	{"trim", func(t *testing.T, open Opener) { testTrim(t, open, false) }},
	{"trim and sweep", func(t *testing.T, open Opener) { testTrim(t, open, true) }},
	{"trim a missing feed", testTrimMissing},
	{"trim under load", testTrimUnderLoad},
	{"sweep", testSweep},
	{"sweep, having been closed", testSweepReopened},
	{"sweep keys", testSweepKeys},
	{"list", testList},
	{"list says what is known", testListInfo},
	{"alone", testAlone},
	{"a closed keeper", testClosedKeeper},
}

func asKeeper(t *testing.T, s feed.Store) feed.RetentionStore {
	t.Helper()
	k, ok := s.(feed.RetentionStore)
	if !ok {
		t.Fatalf("%T is no Keeper", s)
	}
	return k
}

// keep opens the store for the length of the test.
func keep(t *testing.T, open Opener) feed.RetentionStore {
	t.Helper()
	return asKeeper(t, start(t, open))
}

func trim(t *testing.T, k feed.RetentionStore, name string, before feed.ID) {
	t.Helper()
	if err := k.Trim(t.Context(), name, before); err != nil {
		t.Fatalf("trim %s before %d: %v", name, before, err)
	}
}

// sweep sweeps in steps until there is nothing more, and returns how many it took.
func sweep(t *testing.T, k feed.RetentionStore, limit int, window time.Duration) (steps int) {
	t.Helper()
	for more := true; more; steps++ {
		if steps > 10_000 {
			t.Fatal("sweep finds no end")
		}
		var err error
		if more, err = k.Sweep(t.Context(), limit, window); err != nil {
			t.Fatalf("sweep: %v", err)
		}
	}
	return steps
}

func list(t *testing.T, k feed.RetentionStore, prefix, after string, limit int) []feed.Info {
	t.Helper()
	l, err := k.List(t.Context(), prefix, after, limit)
	if err != nil {
		t.Fatalf("list %q after %q: %v", prefix, after, err)
	}
	return l.Feeds
}

// bytesOf returns the feed's size by the list.
func bytesOf(t *testing.T, k feed.RetentionStore, name string) int64 {
	t.Helper()
	infos := list(t, k, name, "", 1)
	if len(infos) != 1 || infos[0].Feed != name {
		t.Fatalf("list of %s: got %v", name, infos)
	}
	return infos[0].Bytes
}

func dataBytes(events []feed.Event) (n int64) {
	for _, e := range events {
		n += int64(len(e.Data))
	}
	return n
}

func testList(t *testing.T, open Opener) {
	s := keep(t, open)
	names := []string{
		"0", "9", "A", "B", "Z", "a", "b", "z", "a-", "a.", "a0", "a9", "a:", "a@", "aA", "aZ", "a_", "aa", "az", "a~",
		"a_b", "axb", "a__", "a:1", "a:10", "a:2", "A:1", "a-b", "a~~", strings.Repeat("n", 255), strings.Repeat("n", 254),
	}
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		publish(t, s, numbered(name, 0, 1))
	}
	slices.Sort(names) // by bytes
	prefixes := []string{
		"", "a", "a:", "a:1", "a:10", "a_", "a_b", "A", "aa", "a~", "zz", "n", "_", "%", "a%", "%a", `a\_`, "a.*", "a[", "'", strings.Repeat("n", 256),
	}
	for _, prefix := range prefixes {
		for _, after := range append(names, "", "C", "a!", "a_a", "zzz", "~", "%", "é") {
			var want []string
			for _, name := range names {
				if strings.HasPrefix(name, prefix) && name > after {
					want = append(want, name)
				}
			}
			for _, limit := range []int{1, 2, 5, 1000} {
				var got []string
				for _, info := range list(t, s, prefix, after, limit) {
					got = append(got, info.Feed)
				}
				if !slices.Equal(got, want[:min(limit, len(want))]) {
					t.Fatalf("prefix %q, after %q, limit %d: got %q of %q", prefix, after, limit, got, want)
				}
			}
		}
	}
}

func testListInfo(t *testing.T, open Opener) {
	s := keep(t, open)
	wantNow(t, s, 10)
	// A refused batch creates no feed.
	refuse(t, s, ifLast(1, on("new", "x")), &feed.LastError{})
	refuse(t, s, keyed("k", ifLast(1, on("new", "x"))), &feed.LastError{})
	wantNow(t, s, 10)
	var want []feed.Info
	for i, name := range []string{"a", "b", "c", "d"} {
		var events []feed.Event
		for n := range 1 + 3*i {
			d := feed.Draft{Feed: name, Type: "type", Data: strings.Repeat("é", n*i), JSON: false}
			events = append(events, publish(t, s, []feed.Draft{d})...)
		}
		last := events[len(events)-1]
		want = append(want, feed.Info{
			Feed: name, Bounds: feed.Bounds{First: 1, Last: last.ID}, Updated: last.Time, Bytes: dataBytes(events),
		})
		waitUntil(last.Time.Add(2 * time.Millisecond))
	}
	// Neither a close nor a trim updates the time of a feed that has had events.
	store(t, s, closing(on("b")))
	want[1].Closed = true
	trim(t, s, "c", 3)
	want[2].First = 3
	trim(t, s, "d", math.MaxUint64)
	want[3].First = want[3].Last + 1
	if diff := cmp.Diff(want, list(t, s, "", "", 10)); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	wantNow(t, s, 0)
}

// wantNow demands an empty list with the current time.
func wantNow(t *testing.T, k feed.RetentionStore, limit int) {
	t.Helper()
	before := time.Now().Truncate(time.Millisecond)
	l, err := k.List(t.Context(), "", "", limit)
	if err != nil || len(l.Feeds) != 0 {
		t.Errorf("got %v, %v; want no feed", l.Feeds, err)
	}
	if l.Now.Before(before) || l.Now.After(time.Now()) {
		t.Errorf("the list has the time %[2]v, and was asked for at %[1]v", before, l.Now)
	}
}

func testAlone(t *testing.T, open Opener) {
	s := keep(t, open)
	failed := errors.New("failed")
	for _, want := range []error{nil, failed, nil} {
		calls := 0
		ran, err := s.RunExclusive(t.Context(), func(ctx context.Context) error {
			calls++
			// The function may use the store.
			if err := s.Trim(ctx, "chat", 1); err != nil {
				return err
			}
			return want
		})
		if !ran || calls != 1 || !errors.Is(err, want) {
			t.Errorf("ran %t, %d times, %v; want once, %v", ran, calls, err, want)
		}
	}
}

func testClosedKeeper(t *testing.T, open Opener) {
	k := asKeeper(t, open(t))
	publish(t, k, numbered("chat", 0, 3))
	if err := k.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if _, err := k.List(t.Context(), "", "", 10); err == nil {
		t.Error("list of a closed store: no error")
	}
	if err := k.Trim(t.Context(), "chat", 3); err == nil {
		t.Error("trim in a closed store: no error")
	}
	if _, err := k.Sweep(t.Context(), 10, 0); err == nil {
		t.Error("sweep of a closed store: no error")
	}
	wantBounds(t, keep(t, open), "chat", feed.Bounds{First: 1, Last: 3})
}
