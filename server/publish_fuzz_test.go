package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/storage/memory"
)

// FuzzPublish: no request breaks the server, a refusal has the standard form, and only
// 201 stores events.
func FuzzPublish(f *testing.F) {
	for _, x := range []exchange{
		{path: events, body: "x"},
		{path: events + "?type=a&close=true", header: key + "\n" + `If-Match: "1"`, body: "x"},
		{path: events + "?ephemeral=true", header: "Content-Type: application/json", body: `{"a":1}`},
		{path: events, header: ndjson, body: "{\"data\":\"a\"}\n\n{\"type\":\"t\",\"data\":{}}"},
		{path: batches, header: ndjson + "\n" + key, body: `{"feed":"news","data":"a"}`},
		{path: batches, header: ndjson, body: `{"feed":"closed","data":1}`},
		{path: "/v1/feeds/closed/events", body: "x"},
		{path: "/v1/feeds/news/close", header: `If-Match: "0"`},
		{path: "/v1/feeds/%63hat/events?a=%zz"},
		{path: events + "?type=t", header: mediaSSE + "\n" + key, body: "data: a\n\nevent: u\ndata: b"},
		{path: events + "?stream=true&close=true", header: ndjson, body: "{\"data\":\"a\"}\n{"},
		{path: events, header: "Content-Encoding: gzip\nEvent-Type: open"},
	} {
		f.Add(http.MethodPost, x.path, x.header, []byte(x.body))
	}
	f.Add(http.MethodPut, events, "", []byte("x"))
	// A problem must not repeat the whole request.
	f.Add(http.MethodPost, "/v1/"+strings.Repeat("x", 2000), "", []byte("x"))
	f.Add(strings.Repeat("X", 2000), events, "", []byte("x"))
	f.Fuzz(func(t *testing.T, method, path, header string, body []byte) {
		r := requestOf(method, path, header, body)
		if r == nil || r.Method == http.MethodGet || r.Method == http.MethodHead {
			return
		}
		store := feedtest.NewStore()
		counting := &countingStore{Store: store}
		handler, end := newHandler(counting)
		defer end()
		if _, err := store.Append(t.Context(), []feed.Batch{
			{Feed: "chat", Drafts: []feed.Draft{{Feed: "chat", Data: "before"}}},
			{Feed: "closed", Close: true},
		}); err != nil {
			t.Fatal(err)
		}
		first := httptest.NewRecorder()
		handler.ServeHTTP(first, r)
		if streamed(r) && first.Code < 500 {
			checkStreamAnswer(t, first, counting.events)
			return
		}
		checkAnswer(t, first, counting.events)
		if first.Code != http.StatusCreated || r.Header.Get("Idempotency-Key") == "" {
			return
		}
		stored := counting.events
		second := httptest.NewRecorder()
		handler.ServeHTTP(second, requestOf(method, path, header, body))
		if second.Code != http.StatusCreated || second.Body.String() != first.Body.String() || counting.events != stored || second.Header().Get("Idempotency-Replayed") != "true" {
			t.Fatalf("repeated: %d %v %s after %s", second.Code, second.Header(), second.Body, first.Body)
		}
	})
}

// streamed reports whether the request publishes its body as a stream.
func streamed(r *http.Request) bool {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return media == "text/event-stream" || media == "application/x-ndjson" && r.URL.Query().Get("stream") == "true"
}

// checkStreamAnswer demands that the answer names the number of stored events.
func checkStreamAnswer(t *testing.T, answer *httptest.ResponseRecorder, stored int) {
	t.Helper()
	if answer.Code != http.StatusCreated {
		wantProblem(t, answer.Result(), answer.Body.String(), answer.Code, "")
	}
	var said struct{ Events, Replayed int }
	if err := json.Unmarshal(answer.Body.Bytes(), &said); err != nil || said.Events-said.Replayed != stored {
		t.Fatalf("%d %s, and %d events stored (%v)", answer.Code, answer.Body, stored, err)
	}
}

// FuzzPublishStream: however a body is cut into pieces, it becomes the same events, those
// that a parser of whole bodies finds.
func FuzzPublishStream(f *testing.F) {
	for _, body := range []string{
		"data: a\n\nevent: t\ndata:b\r\ndata\r\n\r\n: x\rid: 1\r\rdata: c",
		"\uFEFFdata: a\n\n\n\ndata: \xff\n\n", "event: open\ndata: x\n\n", "data: " + strings.Repeat("x", 70), "data\x00\n", "",
	} {
		f.Add(body, uint8(3))
	}
	f.Fuzz(func(t *testing.T, body string, size uint8) {
		const limit = 60
		want, whole := server.ParseStream(slices.Values([]string{body}), limit)
		got, err := server.ParseStream(func(yield func(string) bool) {
			for rest := body; rest != ""; {
				n := min(1+int(size), len(rest))
				if !yield(rest[:n]) {
					return
				}
				rest = rest[n:]
			}
		}, limit)
		if !slices.Equal(got, want) || fmt.Sprint(err) != fmt.Sprint(whole) {
			t.Fatalf("in pieces: %+v, %v; whole: %+v, %v", got, err, want, whole)
		}
		if err != nil {
			return
		}
		var simple []feed.Draft
		text := strings.TrimPrefix(strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(body), "\uFEFF")
		var data []string
		kind := ""
		for line := range strings.SplitSeq(text+"\n\n", "\n") {
			name, value, _ := strings.Cut(line, ":")
			value = strings.TrimPrefix(value, " ")
			switch {
			case line == "":
				if data != nil {
					simple = append(simple, feed.Draft{Feed: "chat", Type: kind, Data: strings.Join(data, "\n")})
				}
				data, kind = nil, ""
			case name == "data":
				data = append(data, value)
			case name == "event":
				kind = value
			}
		}
		if !slices.Equal(got, simple) {
			t.Fatalf("got %+v, want %+v", got, simple)
		}
	})
}

// requestOf returns a request as net/http would read it from a connection, or
// nil if it would not.
func requestOf(method, path, header string, body []byte) *http.Request {
	var raw bytes.Buffer
	fmt.Fprintf(&raw, "%s %s HTTP/1.1\r\nHost: x\r\n", method, path)
	for line := range strings.Lines(header) {
		raw.WriteString(strings.TrimSpace(line) + "\r\n")
	}
	fmt.Fprintf(&raw, "Content-Length: %d\r\n\r\n%s", len(body), body)
	r, err := http.ReadRequest(bufio.NewReader(&raw))
	if err != nil {
		return nil
	}
	return r
}

// countingStore counts what is stored.
type countingStore struct {
	feed.Store
	events int
}

func (s *countingStore) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	results, err := s.Store.Append(ctx, batches)
	for _, r := range results {
		if r.Err == nil && !r.Replayed {
			s.events += len(r.Events)
		}
	}
	return results, err
}

func newHandler(store feed.Store) (handler http.Handler, end func()) {
	bus := memory.NewBus()
	hub := feed.NewHub(store, bus, feed.HubOptions{})
	publisher := feed.NewPublisher(store, hub, bus, feed.PublisherOptions{})
	return server.New(hub, publisher, server.Options{}), func() {
		publisher.Close()
		hub.Close()
		bus.Close()
		store.Close()
	}
}

func checkAnswer(t *testing.T, answer *httptest.ResponseRecorder, stored int) {
	t.Helper()
	switch {
	case answer.Code >= 500:
		t.Fatalf("%d %s", answer.Code, answer.Body)
	case answer.Code >= 400:
		wantProblem(t, answer.Result(), answer.Body.String(), answer.Code, "")
	}
	if answer.Code != http.StatusCreated {
		if stored > 0 {
			t.Fatalf("%d %s, and %d events stored", answer.Code, answer.Body, stored)
		}
		return
	}
	var said struct {
		ID     feed.ID
		Events []struct {
			Feed string
			ID   feed.ID
		}
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &said); err != nil {
		t.Fatal(err)
	}
	if said.ID > 0 && len(said.Events) == 0 && stored == 1 || said.ID == 0 && len(said.Events) == stored && stored > 0 {
		return
	}
	t.Fatalf("%s, and %d events stored", answer.Body, stored)
}
