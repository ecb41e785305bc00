package client

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// clientOf returns a client of a server with this handler. Both end with the test.
func clientOf(t *testing.T, handler http.Handler) *Client {
	t.Helper()
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	c, err := New(srv.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.HTTP().CloseIdleConnections)
	return c
}

// TestFeedsPages: a list of feeds is read to its end, and no further than asked.
func TestFeedsPages(t *testing.T) {
	var asked []string
	handler := func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.String())
		switch r.URL.Query().Get("after") {
		case "":
			_, _ = io.WriteString(w, `{"feeds":[{"feed":"a","first":1,"last":2,"closed":false,"updated":"2026-01-31T09:30:00.5Z"},{"feed":"b","first":3,"last":2,"closed":true}],"next":"b"}`)
		case "b":
			_, _ = io.WriteString(w, `{"feeds":[{"feed":"c"}],"next":"c"}`)
		case "c":
			_, _ = io.WriteString(w, `{"feeds":[],"next":"c"}`)
		}
	}
	c := clientOf(t, http.HandlerFunc(handler))
	var got []FeedInfo
	var failure error
	for info, err := range c.Feeds(t.Context(), "a&b") {
		if failure = err; err == nil {
			got = append(got, info)
		}
	}
	want := []FeedInfo{{Feed: "a", First: 1, Last: 2, Updated: time.Date(2026, 1, 31, 9, 30, 0, 5e8, time.UTC)}, {Feed: "b", First: 3, Last: 2, Closed: true}, {Feed: "c"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !errors.Is(failure, ErrViolation) {
		t.Errorf("a list that goes round ends with %v", failure)
	}
	const list = "/v1/feeds?"
	if diff := cmp.Diff([]string{list + "limit=1000&prefix=a%26b", list + "after=b&limit=1000&prefix=a%26b", list + "after=c&limit=1000&prefix=a%26b"}, asked); diff != "" {
		t.Error(diff)
	}
	asked = nil
	for range c.Feeds(t.Context(), "") {
		break
	}
	if len(asked) != 1 {
		t.Errorf("asked %q for one feed", asked)
	}
}

// TestFeedCalls: what is sent for one feed, and what failures are like.
func TestFeedCalls(t *testing.T) {
	var asked []string
	answer := func(w http.ResponseWriter) { w.WriteHeader(http.StatusNoContent) }
	c := clientOf(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, fmt.Sprint(r.Method, " ", r.URL))
		answer(w)
	}))
	ctx := t.Context()
	if err := errors.Join(c.Trim(ctx, "chat:1", 43), c.Delete(ctx, "chat:1")); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"DELETE /v1/feeds/chat:1/events?before=43", "DELETE /v1/feeds/chat:1"}, asked); diff != "" {
		t.Error(diff)
	}
	asked = nil
	if c.Trim(ctx, "../x", 1) == nil || c.Delete(ctx, "") == nil || asked != nil {
		t.Errorf("what is no name is sent: %q", asked)
	}
	if _, err := c.Feed(ctx, "a/b"); err == nil || asked != nil {
		t.Errorf("what is no name is sent: %q", asked)
	}
	answer = func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"detail":"it is not there"}`)
	}
	_, err := c.Feed(ctx, "chat")
	if p, ok := errors.AsType[*Problem](err); !ok || p.Status != http.StatusNotFound || p.Detail != "it is not there" {
		t.Error(err)
	}
	answer = func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>") }
	if _, err := c.Feed(ctx, "chat"); err == nil || !strings.HasPrefix(err.Error(), "read the answer: ") {
		t.Error(err)
	}
	if err := c.Delete(ctx, "chat"); err == nil {
		t.Error("a page in place of an empty answer passes for a success")
	}
}
