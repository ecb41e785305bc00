package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/tmaxmax/go-sse"

	"github.com/rejoin/rejoin/feed"
)

// streamBuffer bounds what is read before a block is whole. It is far above a
// block's 64 KiB, because keep-alives, which belong to no block, gather in it.
const streamBuffer = 1 << 20

// errEnded is a stream that ended as a response ends, which says nothing about
// the feed.
var errEnded = errors.New("the stream ended")

// connect follows the feed over one connection. It returns why that ended,
// never nil.
func (t *tailer) connect(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(t.silence, func() { cancel(fmt.Errorf("no byte for %v", t.silence)) })
	defer watch.Stop()

	req, err := t.request(ctx)
	if err != nil {
		return err
	}
	resp, err := t.client.Do(req)
	if err != nil {
		return because(ctx, err)
	}
	defer resp.Body.Close()
	if err := requireStream(resp); err != nil {
		return err
	}
	opened := false
	body := watchedReader{resp.Body, func() { watch.Reset(t.silence) }}
	for event, err := range sse.Read(body, &sse.ReadConfig{MaxEventSize: streamBuffer}) {
		if err != nil {
			return because(ctx, err)
		}
		if err := t.take(event, &opened); err != nil {
			return err
		}
	}
	return because(ctx, errEnded)
}

// because prefers the reason for which ctx was ended to the error that this
// brought about.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

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

// take handles one event of a stream. It holds the server to its promise:
// every id follows the one before it, or a gap says why not.
func (t *tailer) take(event sse.Event, opened *bool) error {
	id, err := feed.ParseCursor(event.LastEventID)
	if err != nil {
		return fmt.Errorf("%w: event without a usable id: %w", errBroken, err)
	}
	switch {
	case event.Type == "feed.open":
		*opened = true
		return t.open(id)
	case !*opened:
		return fmt.Errorf("%w: event %d came before feed.open", errBroken, id)
	case event.Type == "feed.gap":
		return t.gap(id, event.Data)
	case event.Type == "feed.closed" && id == t.cursor:
		return errClosed
	case event.Type == "feed.closed":
		return fmt.Errorf("%w: the feed closed at event %d, the last one seen is %d", errBroken, id, t.cursor)
	case isControl(event.Type):
		// Should one of these have moved the cursor, the next event shows it.
		return nil
	case id <= t.cursor:
		return fmt.Errorf("%w: event %d came again after event %d", errBroken, id, t.cursor)
	case id > t.cursor+1:
		return fmt.Errorf("%w: event %d came after event %d, without those between them", errBroken, id, t.cursor)
	}
	return t.print(id, event.Type, event.Data)
}

// open takes the cursor that a stream starts from.
func (t *tailer) open(id feed.Cursor) error {
	if t.started && id != t.cursor {
		return fmt.Errorf("%w: asked to go on after event %d, it goes on after %d", errBroken, t.cursor, id)
	}
	t.cursor, t.started = id, true
	t.retry.reset()
	t.noteReturn()
	return nil
}

// gap says in words what is missing, and goes on behind it.
func (t *tailer) gap(id feed.Cursor, data string) error {
	var gap struct {
		Resumes uint64         `json:"resumes"`
		Reason  feed.GapReason `json:"reason"`
	}
	if err := json.Unmarshal([]byte(data), &gap); err != nil {
		return fmt.Errorf("%w: feed.gap cannot be read: %w", errBroken, err)
	}
	switch gap.Reason {
	case feed.Trimmed:
		t.note("gap: events %d to %d of %s are no longer kept; going on with event %d", t.cursor+1, gap.Resumes-1, t.feed, gap.Resumes)
	case feed.Ahead:
		t.note("gap: %s ends at event %d, before event %d, which was seen: its store was replaced by an older one; what comes next has the id %d", t.feed, id, t.cursor, gap.Resumes)
	default:
		t.note("gap: after event %d of %s comes event %d (%s)", t.cursor, t.feed, gap.Resumes, gap.Reason)
	}
	t.cursor = id
	return nil
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
