package sqlite

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/rejoin/rejoin/feed"
)

// command runs the named child of this test binary on path.
func command(t *testing.T, child, path string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, child, path)
	cmd.Stderr = os.Stderr
	return cmd
}

// appendChild appends for ever, from several goroutines, and writes a line for
// each acknowledged event.
func appendChild(path string, out io.Writer) error {
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	failed := make(chan error)
	for w := range 4 {
		go func() {
			for n := 0; ; n++ {
				var b feed.Batch
				for i := range 1 + n%20 {
					b.Drafts = append(b.Drafts, feed.Draft{
						Feed: fmt.Sprintf("chat:%d", (w+i)%3), Data: fmt.Sprintf("%d-%d-%d-%d", os.Getpid(), w, n, i),
					})
				}
				results, err := s.Append(context.Background(), []feed.Batch{b})
				if err != nil {
					failed <- err
					return
				}
				mu.Lock()
				for _, e := range results[0].Events {
					fmt.Fprintln(out, e.Feed, e.ID, e.Data)
				}
				mu.Unlock()
			}
		}()
	}
	return <-failed
}

// runAndKill runs the named child, kills it after this number of lines, and calls f
// with each line.
func runAndKill(t *testing.T, child, path string, lines int, f func(line string)) {
	t.Helper()
	cmd := command(t, child, path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	scanner := bufio.NewScanner(out)
	for n := 0; scanner.Scan(); n++ {
		f(scanner.Text())
		if n == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
}

// Acknowledged events are there after kill -9, and the next start needs no help:
// neither the lock nor the log stands in its way.
func TestKill(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	acknowledged := make(map[string]map[feed.ID]string)
	for round := range 5 {
		runAndKill(t, "append", path, 200+150*round, func(line string) {
			var e feed.Event
			if _, err := fmt.Sscan(line, &e.Feed, &e.ID, &e.Data); err != nil {
				return // the kill may have cut the last line
			}
			if acknowledged[e.Feed] == nil {
				acknowledged[e.Feed] = make(map[feed.ID]string)
			}
			acknowledged[e.Feed][e.ID] = e.Data
		})
		s := openStore(t, path)
		for name, events := range acknowledged {
			checkFeed(t, s, name, events)
		}
		w := <-s.writing
		if got := pragma(t, w.conn, "integrity_check"); got != "ok" {
			t.Errorf("integrity check: %v", got)
		}
		s.writing <- w
		closeStore(t, s)
	}
	if len(acknowledged) != 3 {
		t.Errorf("%d feeds were appended to, want 3", len(acknowledged))
	}
}

// checkFeed fails the test unless the feed is dense and has the acknowledged
// events. It may have more: their acknowledgement was cut off.
func checkFeed(t *testing.T, s *Store, name string, acknowledged map[feed.ID]string) {
	t.Helper()
	page, err := s.Read(t.Context(), name, 0, feed.Limit{Events: 1 << 30, Bytes: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if page.Last != feed.ID(len(page.Events)) {
		t.Errorf("feed %s ends at %d and has %d events", name, page.Last, len(page.Events))
	}
	for i, e := range page.Events {
		if e.ID != feed.ID(i+1) {
			t.Fatalf("feed %s: event %d has id %d", name, i+1, e.ID)
		}
	}
	for id, data := range acknowledged {
		if id > page.Last || page.Events[id-1].Data != data {
			t.Errorf("feed %s: event %d, acknowledged as %q, is lost", name, id, data)
		}
	}
}

// A second process is refused, as long as the first lives.
func TestSecondProcess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "store.db")
	s := openStore(t, path)
	cmd := command(t, "open", path)
	cmd.Stderr = nil
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatal("a second process has opened the file")
	}
	wantError(t, fmt.Errorf("%s", out), "in use")
	mustPut(t, s, "chat", "x")
	closeStore(t, s)
	if err := command(t, "open", path).Run(); err != nil {
		t.Errorf("after the first has closed it: %v", err)
	}
}
