package server_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
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
