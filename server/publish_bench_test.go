package server_test

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// instantStore numbers events and forgets them, so that a benchmark measures a
// publish without a store.
type instantStore struct {
	feed.Store
	last atomic.Uint64
}

func (s *instantStore) ID() string { return "instant" }

func (s *instantStore) Append(_ context.Context, batches []feed.Batch) ([]feed.Result, error) {
	results := make([]feed.Result, len(batches))
	for i, b := range batches {
		events := make([]feed.Event, len(b.Drafts))
		for j, d := range b.Drafts {
			events[j] = feed.Event{Feed: d.Feed, ID: feed.ID(s.last.Add(1)), Type: d.Type, Data: d.Data, JSON: d.JSON, Time: time.UnixMilli(0).UTC()}
		}
		results[i].Events = events
	}
	return results, nil
}

func (s *instantStore) Close() error { return nil }

// sink is a response writer for one request after another.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header               { return s.header }
func (s *sink) Write(b []byte) (int, error)       { return len(b), nil }
func (s *sink) WriteHeader(status int)            { s.status = status }
func (s *sink) SetReadDeadline(_ time.Time) error { return nil }

// BenchmarkPublish measures what a publish costs above net/http and the store:
// one event, and a batch of a hundred.
func BenchmarkPublish(b *testing.B) {
	line := `{"data":{"text":"` + strings.Repeat("x", 100) + `"}}`
	for _, kind := range []struct{ name, media, body string }{
		{"one", "application/json", `{"text":"` + strings.Repeat("x", 100) + `"}`},
		{"batch", "application/x-ndjson", strings.Repeat(line+"\n", 100)},
	} {
		b.Run(kind.name, func(b *testing.B) {
			handler, end := newHandler(&instantStore{})
			defer end()
			w := &sink{header: make(http.Header)}
			body := strings.NewReader(kind.body)
			r := &http.Request{
				Method: http.MethodPost, URL: &url.URL{Path: "/v1/feeds/chat/events"}, Host: "localhost", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
				Header: http.Header{"Content-Type": {kind.media}}, ContentLength: int64(len(kind.body)), Body: io.NopCloser(body),
			}
			b.ReportAllocs()
			for b.Loop() {
				body.Reset(kind.body)
				clear(w.header)
				handler.ServeHTTP(w, r.WithContext(b.Context()))
				if w.status != http.StatusCreated {
					b.Fatalf("got status %d", w.status)
				}
			}
		})
	}
}
