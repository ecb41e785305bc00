package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/testserver"
)

// fileNode is a process that serves the file db.
type fileNode struct {
	*process
	db string
}

func serveFile(t *testing.T, dir string) *fileNode {
	t.Helper()
	db := filepath.Join(dir, "rejoin.db")
	return &fileNode{serve(t, built(t, false), db), db}
}

// stop ends the node in order.
func (n *fileNode) stop() {
	n.t.Helper()
	if err := n.terminate(); err != nil {
		n.t.Fatalf("%v\n%s", err, n.log)
	}
}

// answers sends a request and wants this status. It returns the body.
func (n *fileNode) answers(status int, method, path, body string) string {
	n.t.Helper()
	got, answer := n.ask(method, path, body)
	if got != status {
		n.t.Fatalf("%s %s: got %d %s, want %d\n%s", method, path, got, answer, status, n.log)
	}
	return answer
}

func (n *fileNode) ask(method, path, body string) (status int, answer string) {
	n.t.Helper()
	req, err := http.NewRequestWithContext(n.t.Context(), method, n.url+path, strings.NewReader(body))
	if err != nil {
		n.t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		n.t.Fatal(err)
	}
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return resp.StatusCode, string(all)
}

// becomes waits until the request is answered with this status.
func (n *fileNode) becomes(status int, method, path, body string) {
	n.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		got, answer := n.ask(method, path, body)
		if got == status {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("%s %s: still %d %s, want %d\n%s", method, path, got, answer, status, n.log)
		}
	}
}

// logs waits for a line of the log that has all the words.
func (n *fileNode) logs(words ...string) {
	n.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for line := range strings.Lines(n.log.String()) {
			if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
				return
			}
		}
	}
	n.t.Errorf("no line of the log has %q:\n%s", words, n.log)
}

// A file that is taken from under the server takes no event with it that anybody
// was told is stored.
func TestStoreFileIsTakenAway(t *testing.T) {
	n := serveFile(t, t.TempDir())
	n.answers(http.StatusCreated, "POST", "/v1/feeds/chat/events", "one")
	n.answers(http.StatusOK, "GET", "/readyz", "")
	if err := os.Rename(n.db, n.db+".away"); err != nil {
		t.Fatal(err)
	}
	// The store notices before it writes, or, a moment after another write, behind that.
	answer := n.answers(http.StatusServiceUnavailable, "POST", "/v1/feeds/chat/events", "two")
	if !strings.Contains(answer, `"stored":"no"`) && !strings.Contains(answer, `"stored":"unknown"`) {
		t.Errorf("the publisher is told %s", answer)
	}
	n.answers(http.StatusServiceUnavailable, "GET", "/readyz", "")
	n.answers(http.StatusOK, "GET", "/healthz", "")
	n.answers(http.StatusOK, "GET", "/v1/feeds/chat/events?after=0", "")
	n.logs(n.db, "removed or renamed")
	if err := os.Rename(n.db+".away", n.db); err != nil {
		t.Fatal(err)
	}
	n.answers(http.StatusOK, "GET", "/readyz", "")
	n.answers(http.StatusCreated, "POST", "/v1/feeds/chat/events", "two")
}

// A damaged page is no secret: readiness and the log tell of it.
func TestStoreFileIsDamaged(t *testing.T) {
	dir := t.TempDir()
	n := serveFile(t, dir)
	for i := range 20 {
		n.answers(http.StatusCreated, "POST", "/v1/feeds/chat/events", fmt.Sprintf("needle-%d.", i)+strings.Repeat("x", 10_000))
	}
	n.answers(http.StatusCreated, "POST", "/v1/feeds/sound/events", "one")
	n.stop()
	content, err := os.ReadFile(n.db)
	if err != nil {
		t.Fatal(err)
	}
	page := bytes.Index(content, []byte("needle-10.")) / 4096 * 4096
	if err := os.WriteFile(n.db, append(append(bytes.Clone(content[:page]), make([]byte, 4096)...), content[page+4096:]...), 0o644); err != nil {
		t.Fatal(err)
	}
	n = serveFile(t, dir)
	n.answers(http.StatusOK, "GET", "/readyz", "")
	n.answers(http.StatusServiceUnavailable, "GET", "/v1/feeds/chat/events?after=9", "")
	n.answers(http.StatusServiceUnavailable, "GET", "/readyz", "")
	n.logs(n.db, "damaged")
	n.answers(http.StatusOK, "GET", "/v1/feeds/sound/events?after=0", "")
	n.answers(http.StatusCreated, "POST", "/v1/feeds/sound/events", "two")
}

// A node that starts on a full disk serves what there is, and publishes again
// once there is room. One that cannot even do that waits.
func TestStartOnFullDisk(t *testing.T) {
	dir, ok := testserver.SmallDisk(t, "16m")
	if !ok {
		return
	}
	n := serveFile(t, dir)
	n.answers(http.StatusCreated, "POST", "/v1/feeds/chat/events", "one")
	n.stop()
	filler := testserver.FillDisk(t, dir)

	n = serveFile(t, dir)
	n.answers(http.StatusOK, "GET", "/v1/feeds/chat/events?after=0", "")
	for range 1000 { // until it has used what room the file and its log have
		if status, _ := n.ask("POST", "/v1/feeds/chat/events", strings.Repeat("x", 50_000)); status != http.StatusCreated {
			break
		}
	}
	n.answers(http.StatusServiceUnavailable, "POST", "/v1/feeds/chat/events", strings.Repeat("x", 50_000))
	n.answers(http.StatusOK, "GET", "/v1/feeds/chat/events?after=0", "")
	n.answers(http.StatusOK, "GET", "/healthz", "")
	n.logs(n.db, "the disk is full")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	n.answers(http.StatusCreated, "POST", "/v1/feeds/chat/events", strings.Repeat("x", 50_000))
	n.stop()

	if err := os.Remove(n.db + "-reserve"); err != nil {
		t.Fatal(err)
	}
	filler = testserver.FillDisk(t, dir)
	n = serveFile(t, dir)
	n.answers(http.StatusServiceUnavailable, "POST", "/v1/feeds/chat/events", "two")
	n.answers(http.StatusServiceUnavailable, "GET", "/readyz", "")
	n.answers(http.StatusOK, "GET", "/healthz", "")
	n.logs(n.db, "the disk is full")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	n.becomes(http.StatusOK, "GET", "/readyz", "")
	n.answers(http.StatusCreated, "POST", "/v1/feeds/chat/events", "two")
	n.stop()
}
