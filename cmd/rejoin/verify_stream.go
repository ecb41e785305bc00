package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/rejoin/rejoin/feed"
)

// How a subscriber ends.
var (
	errClosed  = errors.New("all is delivered, and closed")
	errExpired = errors.New("the token's time is up")
	errBroken  = errors.New("the server broke its promise")
)

// requireStream returns nil for an event stream, errClosed when there is nothing
// more to come, a refusal for any other response.
func requireStream(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusNoContent:
		return errClosed
	case http.StatusOK:
	default:
		return readRefusal(resp)
	}
	if mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); mediaType != "text/event-stream" {
		return &refusal{status: http.StatusOK, detail: fmt.Sprintf("the answer is %q, not an event stream", mediaType)}
	}
	return nil
}

// isControl says whether an event is about feeds instead of in one.
func isControl(kind string) bool { return strings.HasPrefix(kind, "feed.") }

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errBroken}, args...)...)
}

func describe(b streamBlock) string {
	switch {
	case isControl(b.kind):
		return b.kind
	case b.hasID:
		return "event " + b.id
	}
	return "an event without id"
}

// envelope is what is read of the data of a block where that says everything
// about its event.
type envelope struct {
	Feed string          `json:"feed"`
	ID   *feed.Cursor    `json:"id"`
	Data json.RawMessage `json:"data"`
}

// dataOf returns the data of an envelope as lines show it.
func dataOf(data json.RawMessage) string {
	var s string
	if data[0] == '"' && json.Unmarshal(data, &s) == nil {
		return s
	}
	return string(data)
}

// temporary says whether the same request may succeed later.
func temporary(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusRequestTimeout || status >= 500 && status != http.StatusNotImplemented
}

// watchedReader tells of every read that brought something.
type watchedReader struct {
	io.Reader
	seen func()
}

func (r watchedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if n > 0 {
		r.seen()
	}
	return n, err
}
