package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rejoin/rejoin/feed"
)

// Opener opens the store at one place. After a test has closed the store, it may open it
// again, and expects to find everything there. The tests close every store that they
// open.
type Opener func(t *testing.T) feed.Store

// test is a test of what fresh returns in runEach.
type test[F any] struct {
	name string
	run  func(t *testing.T, f F)
}

// runEach runs the tests in parallel, and calls fresh once for each of them.
func runEach[F any](t *testing.T, fresh func(t *testing.T) F, tests []test[F]) {
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, fresh(t))
		})
	}
}

// TestStore tests a store, which must also be a [feed.RetentionStore]. It calls fresh
// once for each subtest, for a new and empty place.
func TestStore(t *testing.T, fresh func(t *testing.T) Opener) {
	runEach(t, fresh, slices.Concat(storeTests, keyTests, conditionTests, keeperTests))
}

var storeTests = []test[Opener]{
	{"ids are dense from 1", testIDs},
	{"batches keep their order", testBatches},
	{"nothing to append", testEmpty},
	{"a large append", testLarge},
	{"bytes are kept", testBytes},
	{"names differ", testNames},
	{"times", testTimes},
	{"read", testRead},
	{"read limits", testReadLimits},
	{"bounds", testBounds},
	{"ends", testEnds},
	{"seek", testSeek},
	{"concurrent appends", testConcurrent},
	{"ended contexts", testEndedContext},
	{"contexts that end midway", testEndingContext},
	{"reopen", testReopen},
	{"closed", testClosed},
	{"close under load", testCloseUnderLoad},
}

// everything is a limit that no page of a test reaches.
var everything = feed.Limit{Events: 1 << 20, Bytes: 1 << 30}

// start opens the store until the test ends.
func start(t *testing.T, open Opener) feed.Store {
	t.Helper()
	s := open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// drafts returns one draft for each data.
func drafts(name string, data ...string) []feed.Draft {
	ds := make([]feed.Draft, len(data))
	for i, d := range data {
		ds[i] = feed.Draft{Feed: name, Data: d}
	}
	return ds
}

// numbered returns n drafts whose data is the id that they will get in a feed
// that ends at last.
func numbered(name string, last, n int) []feed.Draft {
	ds := make([]feed.Draft, n)
	for i := range ds {
		ds[i] = feed.Draft{Feed: name, Data: fmt.Sprint(last + i + 1)}
	}
	return ds
}

// publish appends the drafts as one batch and returns its events.
func publish(t *testing.T, s feed.Store, ds []feed.Draft) []feed.Event {
	t.Helper()
	results, err := s.Append(t.Context(), []feed.Batch{{Drafts: ds}})
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	if len(results) != 1 || results[0].Err != nil {
		t.Fatalf("append: got %v, want one result without an error", results)
	}
	if err := answers(results[0].Events, ds); err != nil {
		t.Fatalf("append: %v", err)
	}
	return results[0].Events
}

// read returns a page, and fails the test if the page is not sound.
func read(t *testing.T, s feed.Store, name string, after feed.ID, limit feed.Limit) feed.Page {
	t.Helper()
	page, err := s.Read(t.Context(), name, after, limit)
	if err != nil {
		t.Fatalf("read %s after %d: %v", name, after, err)
	}
	if err := soundPage(page, name, after); err != nil {
		t.Fatalf("read %s after %d: %v", name, after, err)
	}
	return page
}

// expect fails the test unless the feed has exactly these events.
func expect(t *testing.T, s feed.Store, name string, want []feed.Event) {
	t.Helper()
	page := read(t, s, name, 0, everything)
	if diff := cmp.Diff(want, page.Events, sameEmpty); diff != "" {
		t.Errorf("feed %s (-want +got):\n%s", name, diff)
	}
	if want := (feed.Bounds{First: 1, Last: feed.ID(len(want))}); page.Bounds != want {
		t.Errorf("feed %s: got bounds %v, want %v", name, page.Bounds, want)
	}
}

// sameEmpty compares an empty slice of events as equal to nil.
var sameEmpty = cmp.FilterValues(
	func(a, b []feed.Event) bool { return len(a) == 0 && len(b) == 0 },
	cmp.Comparer(func(a, b []feed.Event) bool { return true }),
)

// answers returns an error unless events can be the result of appending ds.
func answers(events []feed.Event, ds []feed.Draft) error {
	if len(events) != len(ds) {
		return fmt.Errorf("got %d events for %d drafts", len(events), len(ds))
	}
	for i, e := range events {
		if got := (feed.Draft{Feed: e.Feed, Type: e.Type, Data: e.Data, JSON: e.JSON}); got != ds[i] {
			return fmt.Errorf("event %d is of another draft: %s", i, cmp.Diff(ds[i], got))
		}
		if err := soundTime(e.Time); err != nil {
			return fmt.Errorf("event %d: %w", i, err)
		}
	}
	return nil
}

func soundTime(at time.Time) error {
	if at.Location() != time.UTC {
		return fmt.Errorf("time %v is not UTC", at)
	}
	if at.Nanosecond()%int(time.Millisecond) != 0 {
		return fmt.Errorf("time %v is not a whole millisecond", at)
	}
	return nil
}

// soundPage returns an error unless the page can follow the cursor.
func soundPage(page feed.Page, name string, after feed.ID) error {
	if page.First < 1 || page.First > page.Last+1 {
		return fmt.Errorf("bounds are %v", page.Bounds)
	}
	next := max(after+1, page.First)
	if next <= page.Last && len(page.Events) == 0 {
		return fmt.Errorf("no event, and the feed has %d to %d", next, page.Last)
	}
	for i, e := range page.Events {
		switch want := next + feed.ID(i); {
		case e.Feed != name:
			return fmt.Errorf("an event of feed %s", e.Feed)
		case e.ID != want:
			return fmt.Errorf("event %d of the page has id %d, want %d", i, e.ID, want)
		case e.ID > page.Last:
			return fmt.Errorf("event %d is past the end, %d", e.ID, page.Last)
		case i > 0 && e.Time.Before(page.Events[i-1].Time):
			return fmt.Errorf("event %d has time %v, the one before it %v", e.ID, e.Time, page.Events[i-1].Time)
		}
		if err := soundTime(e.Time); err != nil {
			return fmt.Errorf("event %d: %w", e.ID, err)
		}
	}
	return nil
}

// soundError returns an error unless an append may fail with err.
func soundError(err error) error {
	for _, known := range []error{feed.ErrUnavailable, feed.ErrStopped, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return nil
		}
	}
	return fmt.Errorf("a store may not return the error %w", err)
}

// sameEvent compares the times as instants.
func sameEvent(a, b feed.Event) bool {
	same := a.Time.Equal(b.Time)
	a.Time, b.Time = time.Time{}, time.Time{}
	return same && a == b
}
