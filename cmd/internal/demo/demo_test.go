package demo

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/memory"
	"github.com/rejoin/rejoin/storage/sqlite"
)

// world is a demo on a real store.
type world struct {
	t     *testing.T
	feeds *feed.Node
	demo  *Demo
	http  http.Handler
}

func open(t *testing.T, o Options) *world {
	t.Helper()
	return openOn(t, newFile(t), o)
}

func newFile(t *testing.T) feed.RetentionStore {
	t.Helper()
	store, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "rejoin.db"), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func openOn(t *testing.T, store feed.Store, o Options) *world {
	t.Helper()
	bus := memory.NewBus()
	feeds, err := feed.Open(store, bus, feed.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := New(feeds.Publisher, o)
	pages := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })
	t.Cleanup(func() {
		d.Close()
		feeds.Close()
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{t, feeds, d, d.Handler(pages)}
}

func (w *world) request(method, path string, header map[string]string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), method, path, nil)
	for name, value := range header {
		r.Header.Set(name, value)
	}
	answer := httptest.NewRecorder()
	w.http.ServeHTTP(answer, r)
	return answer
}

// ask begins an answer and returns the name of its feed.
func (w *world) ask() string {
	w.t.Helper()
	answer := w.request("POST", "/demo/answers", nil)
	var begun struct{ Feed string }
	if err := json.Unmarshal(answer.Body.Bytes(), &begun); err != nil || answer.Code != http.StatusCreated || !feed.MatchPattern(Rules[0].Feeds, begun.Feed) {
		w.t.Fatalf("%d %s (%v)", answer.Code, answer.Body, err)
	}
	return begun.Feed
}

// read returns what the feed has, and whether it is closed.
func (w *world) read(name string) (string, bool) {
	w.t.Helper()
	page, err := w.feeds.Hub.Read(w.t.Context(), name, 0, feed.Limit{Events: 1000, Bytes: 1 << 20})
	if err != nil {
		w.t.Fatal(err)
	}
	var words strings.Builder
	for _, e := range page.Events {
		words.WriteString(e.Data)
	}
	return words.String(), page.Closed
}

// ended waits for the end of the answers that are under way.
func (w *world) ended() {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) { // until the last word is stored
		w.demo.mu.Lock()
		all := w.demo.all
		w.demo.mu.Unlock()
		if all == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal("an answer does not end")
		}
	}
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	w := open(t, Options{Pause: time.Microsecond})
	name := w.ask()
	if first, _ := w.read(name); !strings.HasPrefix(first, "A ") {
		t.Errorf("the feed begins with %q", first)
	}
	w.ended()
	if got, closed := w.read(name); got != text || !closed {
		t.Errorf("the answer is %q, closed %t", got, closed)
	}
	if again := w.ask(); again == name {
		t.Error("two answers have one feed")
	}
}

// TestAnswerStopped: who closes the feed ends the program that writes to it.
func TestAnswerStopped(t *testing.T) {
	t.Parallel()
	w := open(t, Options{Pause: time.Millisecond})
	name := w.ask()
	if _, err := w.feeds.Publisher.PublishBatch(t.Context(), feed.Publication{Feed: name, Close: true}); err != nil {
		t.Fatal(err)
	}
	w.ended()
	if got, closed := w.read(name); len(got) >= len(text) || !closed {
		t.Errorf("the answer is %q, closed %t", got, closed)
	}
}

// TestAnswersAreBounded, for each visitor and for all; the end of the demo ends them.
func TestAnswersAreBounded(t *testing.T) {
	t.Parallel()
	visitor := "a"
	w := open(t, Options{Pause: time.Hour, Visitor: func(*http.Request) string { return visitor }})
	names := []string{w.ask(), w.ask()}
	refused := func(want string) {
		t.Helper()
		answer := w.request("POST", "/demo/answers", nil)
		if answer.Code != http.StatusTooManyRequests || answer.Header().Get("Retry-After") == "" || !strings.Contains(answer.Body.String(), want) {
			t.Errorf("%d %s, want 429 with %q", answer.Code, answer.Body, want)
		}
	}
	refused("2 answers are being written for you")
	for i := range answersInAll - 2 {
		visitor = string(rune('b' + i/2))
		names = append(names, w.ask())
	}
	visitor = "z"
	refused("for all visitors")
	w.demo.Close()
	refused("stopping")
	for _, name := range names {
		if got, closed := w.read(name); got != "A " || !closed {
			t.Errorf("%s is %q, closed %t", name, got, closed)
		}
	}
	if len(w.demo.answers) > 0 {
		t.Errorf("after the end, %v are under way", w.demo.answers)
	}
}

func TestHandler(t *testing.T) {
	t.Parallel()
	w := open(t, Options{})
	for _, test := range []struct {
		method, path string
		header       map[string]string
		want         int
	}{
		{"GET", "/demo/answers", nil, http.StatusTeapot},
		{"POST", "/demo", nil, http.StatusTeapot},
		{"POST", "/demo/answers/", nil, http.StatusTeapot},
		{"GET", "//demo", nil, http.StatusTeapot},
		{"POST", "/demo/answers", map[string]string{"Sec-Fetch-Site": "cross-site"}, http.StatusForbidden},
		{"POST", "/demo/answers", map[string]string{"Origin": "https://other.example"}, http.StatusForbidden},
		{"POST", "/demo/answers", map[string]string{"Sec-Fetch-Site": "same-origin"}, http.StatusCreated},
	} {
		if got := w.request(test.method, test.path, test.header).Code; got != test.want {
			t.Errorf("%s %s %v: %d, want %d", test.method, test.path, test.header, got, test.want)
		}
	}
}
