package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// wireEvent is an event as it goes over the wire with its surroundings.
type wireEvent struct {
	Feed, Type string
	ID         feed.ID
	Time       time.Time
	Data       json.RawMessage
}

// event returns the event that the envelope holds. Published text is a string
// there; so is a string published as JSON, which these tests do not do. No type
// is the type message.
func (e wireEvent) event() feed.Event {
	if e.Type == "message" {
		e.Type = ""
	}
	out := feed.Event{Feed: e.Feed, ID: e.ID, Type: e.Type, Time: e.Time, JSON: true, Data: string(e.Data)}
	var text string
	if json.Unmarshal(e.Data, &text) == nil {
		out.Data, out.JSON = text, false
	}
	return out
}

// history is what a feed holds, page by page, in the bytes of the wire.
type history struct {
	First, Last feed.ID
	Closed      bool
	Events      []json.RawMessage
}

func readHistory(t testing.TB, url, name string) (all history) {
	t.Helper()
	for cursor := "0"; ; {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/feeds/"+name+"/events?limit=1000&after="+cursor, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "application/json")
		var page struct {
			history
			Cursor string
		}
		if status, text := do(t, req); status != http.StatusOK {
			t.Fatalf("read %s: %d %s", name, status, text)
		} else if err := json.Unmarshal([]byte(text), &page); err != nil {
			t.Fatalf("read %s: %v in %s", name, err, text)
		}
		all.First, all.Last, all.Closed = page.First, page.Last, page.Closed
		all.Events = append(all.Events, page.Events...)
		if cursor = page.Cursor; cursor == fmt.Sprint(page.Last) || len(page.Events) == 0 {
			return all
		}
	}
}

// page returns the history as the checker takes it.
func (h history) page(t testing.TB) (p feed.Page) {
	t.Helper()
	p.Bounds = feed.Bounds{First: h.First, Last: h.Last, Closed: h.Closed}
	for _, raw := range h.Events {
		var e wireEvent
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatalf("%v in %s", err, raw)
		}
		p.Events = append(p.Events, e.event())
	}
	return p
}

// do returns the status and the body of the answer.
func do(t testing.TB, req *http.Request) (status int, body string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// call makes a request and demands the status of the answer.
func call(t testing.TB, method, url, contentType, body string, want int) (answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	status, answer := do(t, req)
	if status != want {
		t.Fatalf("%s %s: %d %s, want %d", method, url, status, answer, want)
	}
	return answer
}
