package sqlite

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// keyedBatch returns the nth batch of a worker, always with the same contents.
func keyedBatch(worker string, n int) feed.Batch {
	var b feed.Batch
	for i := range 1 + n%5 {
		b.Drafts = append(b.Drafts, feed.Draft{
			Feed: fmt.Sprintf("chat:%d", (n+i)%3), Data: fmt.Sprintf("%s-%d-%d", worker, n, i),
		})
	}
	name := fmt.Sprintf("%s-%d", worker, n)
	b.Key = &feed.Key{Name: name, Fingerprint: sha256.Sum256([]byte(name)), Window: time.Hour}
	return b
}

// appendKeyed appends one batch.
func appendKeyed(ctx context.Context, s *Store, worker string, n int) (feed.Result, error) {
	results, err := s.Append(ctx, []feed.Batch{keyedBatch(worker, n)})
	if err != nil {
		return feed.Result{}, err
	}
	return results[0], results[0].Err
}

// keysChild appends for ever, from several goroutines, and writes a line for every
// other batch. Only the store knows the outcome of the batches in between. keysChild
// also fills, trims and sweeps a feed.
func keysChild(path string, out io.Writer) error {
	ctx := context.Background()
	s, err := Open(ctx, path, Options{})
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range 4 {
		go func() {
			worker := fmt.Sprintf("%d.%d", time.Now().UnixNano(), w)
			for n := 0; ; n++ {
				r, err := appendKeyed(ctx, s, worker, n)
				if err != nil || r.Replayed {
					failed <- fmt.Errorf("replayed %t, %w", r.Replayed, err)
					return
				}
				if n%2 == 1 {
					// One Write, so that lines are neither mixed nor cut.
					fmt.Fprintf(out, "%s %d %d\n", worker, n, r.Events[0].ID)
				}
			}
		}()
	}
	go func() {
		for {
			events, err := put(ctx, s, "trimmed", "1", "22", "333", "4444", "55555")
			if err == nil {
				err = s.Trim(ctx, "trimmed", events[2].ID)
			}
			if err == nil {
				_, err = s.Sweep(ctx, 3, time.Hour)
			}
			if err != nil {
				failed <- err
				return
			}
		}
	}()
	return <-failed
}

// If a process is killed before it answers a batch with a key, the batch is stored
// once, however often it is repeated. A sweep that was cut short goes on.
func TestKillKeys(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	type answer struct {
		n  int
		id feed.ID
	}
	for round := range 4 {
		answers := make(map[string][]answer) // of each worker of this round
		runAndKill(t, "keys", path, 100+50*round, func(line string) {
			var worker string
			var a answer
			if n, err := fmt.Sscanf(line, "%s %d %d\n", &worker, &a.n, &a.id); n == 3 && err == nil {
				answers[worker] = append(answers[worker], a)
			}
		})
		s := openStore(t, path)
		for worker, told := range answers {
			last := told[len(told)-1].n
			ids := make(map[int]feed.ID)
			for _, a := range told {
				ids[a.n] = a.id
			}
			// The two after the last line may have been stored or not.
			for n := range last + 3 {
				first, err := appendKeyed(t.Context(), s, worker, n)
				if err != nil || n <= last && !first.Replayed {
					t.Fatalf("batch %d of %d: got replayed %t, %v", n, last, first.Replayed, err)
				}
				if id, ok := ids[n]; ok && first.Events[0].ID != id {
					t.Errorf("batch %d was acknowledged as %d and is repeated as %d", n, id, first.Events[0].ID)
				}
				again, err := appendKeyed(t.Context(), s, worker, n)
				if err != nil || !again.Replayed || again.Events[0] != first.Events[0] {
					t.Fatalf("batch %d again: got %v, %v; want %v", n, again, err, first)
				}
			}
		}
		if len(answers) == 0 {
			t.Error("nothing was acknowledged")
		}
		checkOnce(t, s)
		checkSwept(t, s)
		closeStore(t, s)
	}
}

// checkOnce fails the test unless the feeds are dense and have each data once.
func checkOnce(t *testing.T, s *Store) {
	t.Helper()
	seen := make(map[string]bool)
	for i := range 3 {
		name := fmt.Sprintf("chat:%d", i)
		checkFeed(t, s, name, nil)
		page, err := s.Read(t.Context(), name, 0, feed.Limit{Events: math.MaxInt, Bytes: math.MaxInt})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Events {
			if seen[e.Data] {
				t.Errorf("%q is there twice", e.Data)
			}
			seen[e.Data] = true
		}
	}
}

// checkSwept ends the sweep of the child, and fails the test unless the feed's size
// is that of its events and no trimmed row is left.
func checkSwept(t *testing.T, s *Store) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = s.Sweep(t.Context(), 100, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	page, err := s.Read(t.Context(), "trimmed", 0, feed.Limit{Events: math.MaxInt, Bytes: math.MaxInt})
	if err != nil {
		t.Fatal(err)
	}
	var bytes int64
	for _, e := range page.Events {
		bytes += int64(len(e.Data))
	}
	list, err := s.List(t.Context(), "trimmed", "", 1)
	if err != nil || list.Feeds[0].Bytes != bytes || list.Feeds[0].First == 1 {
		t.Errorf("got %v, %v; want %d bytes, and something trimmed", list.Feeds, err, bytes)
	}
	w := <-s.writing
	defer func() { s.writing <- w }()
	if got := value(t, w.conn, "SELECT count(*) FROM events JOIN feeds ON feeds.id = feed WHERE seq < first"); got != int64(0) {
		t.Errorf("%v rows of trimmed events are left", got)
	}
}
