package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// errEnded is a stream that ended as a response ends, which says nothing about
// the feed.
var errEnded = errors.New("the stream ended")

// connect follows the feeds over one connection. It returns why that ended,
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
	blocks := newBlockReader(watchedReader{resp.Body, func() { watch.Reset(t.silence) }})
	for {
		b, err := blocks.next()
		if err != nil && !opened {
			t.asked = blocks.retry // how a server turns clients away that it has no room for
		}
		switch {
		case err == io.EOF:
			return because(ctx, errEnded)
		case err != nil:
			return because(ctx, err)
		}
		if err := t.take(b, &opened); err != nil {
			return err
		}
	}
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

// take handles one block of a stream. It holds the server to its promise: in
// each feed, every id follows the one before it, or a gap says why not.
func (t *tailer) take(b streamBlock, opened *bool) error {
	if !*opened && b.kind != "feed.open" {
		return broken("%s came before feed.open", describe(b))
	}
	switch {
	case b.kind == "feed.open":
		*opened = true
		return t.open(b)
	case b.kind == "feed.gap":
		return t.gap(b)
	case b.kind == "feed.closed":
		return t.close(b)
	case b.kind == "feed.cursor":
		return t.moved(b)
	case b.kind == "feed.expired":
		return errExpired
	case isControl(b.kind):
		return nil // whatever a later server has to say, it is not an event
	}
	return t.event(b)
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

// cursors reads the id of a block, which places every feed.
func (t *tailer) cursors(b streamBlock) (map[int]feed.Cursor, error) {
	at, err := t.at.parse(b.id)
	if err != nil {
		return nil, broken("%s without a usable id: %w", describe(b), err)
	}
	for i, f := range t.at.all {
		if _, ok := at[i]; !ok {
			return nil, broken("%s has the id %q, without %s", describe(b), b.id, f.feed)
		}
	}
	return at, nil
}

// open takes the cursor that a stream starts from.
func (t *tailer) open(b streamBlock) error {
	at, err := t.cursors(b)
	if err != nil {
		return err
	}
	for i := range t.at.all {
		f := &t.at.all[i]
		if f.known && at[i] != f.cursor {
			return broken("asked to go on after event %d of %s, it goes on after %d", f.cursor, f.feed, at[i])
		}
		f.cursor, f.known = at[i], true
	}
	t.retry.reset()
	t.noteReturn()
	return nil
}

// advance moves the feeds on that a block is not about. Their cursors move only
// over events that were filtered out.
func (t *tailer) advance(b streamBlock, at map[int]feed.Cursor, about int) error {
	for i := range t.at.all {
		f := &t.at.all[i]
		switch {
		case i == about || at[i] == f.cursor:
		case at[i] < f.cursor:
			return broken("%s takes %s back from event %d to %d", describe(b), f.feed, f.cursor, at[i])
		case t.types == "":
			return broken("%s passes over events of %s, from %d to %d", describe(b), f.feed, f.cursor, at[i])
		default:
			f.cursor = at[i]
		}
	}
	return nil
}

// moved takes a cursor that comes without an event.
func (t *tailer) moved(b streamBlock) error {
	at, err := t.cursors(b)
	if err != nil {
		return err
	}
	return t.advance(b, at, -1)
}

// about reads which feed a control event is about, and the rest of its data.
func (t *tailer) about(b streamBlock, data any) (int, error) {
	if err := json.Unmarshal([]byte(b.data), data); err != nil {
		return 0, broken("%s cannot be read: %w", b.kind, err)
	}
	if !t.at.many {
		return 0, nil
	}
	var which struct{ Feed string }
	if err := json.Unmarshal([]byte(b.data), &which); err != nil {
		return 0, broken("%s cannot be read: %w", b.kind, err)
	}
	i := t.at.index(which.Feed)
	if i < 0 {
		return 0, broken("%s is about %.100q, which is not followed", b.kind, which.Feed)
	}
	return i, nil
}

// close notes that all of a feed has come.
func (t *tailer) close(b streamBlock) error {
	i, err := t.about(b, &struct{}{})
	if err != nil {
		return err
	}
	at, err := t.cursors(b)
	if err != nil {
		return err
	}
	f := &t.at.all[i]
	if at[i] < f.cursor || at[i] > f.cursor && t.types == "" {
		return broken("%s closed at event %d, the last one seen is %d", f.feed, at[i], f.cursor)
	}
	if err := t.advance(b, at, i); err != nil {
		return err
	}
	if t.at.many && !f.closed {
		t.note("%s is closed at event %d", f.feed, at[i])
	}
	f.cursor, f.closed = at[i], true
	if t.at.closed() {
		return errClosed
	}
	return nil
}

// gap says in words what is missing, and goes on behind it.
func (t *tailer) gap(b streamBlock) error {
	var gap struct {
		After   string
		Resumes uint64
		Reason  feed.GapReason
	}
	i, err := t.about(b, &gap)
	if err != nil {
		return err
	}
	at, err := t.cursors(b)
	if err != nil {
		return err
	}
	if err := t.advance(b, at, i); err != nil {
		return err
	}
	f := &t.at.all[i]
	after, err := feed.ParseCursor(gap.After)
	if err != nil || gap.Resumes != uint64(at[i])+1 || after < f.cursor || after > f.cursor && t.types == "" {
		return broken("feed.gap %s with the id %q does not follow event %d of %s", b.data, b.id, f.cursor, f.feed)
	}
	switch gap.Reason {
	case feed.Trimmed:
		t.note("gap: events %d to %d of %s are no longer kept; going on with event %d", after+1, gap.Resumes-1, f.feed, gap.Resumes)
	case feed.Ahead:
		if gap.Resumes > uint64(after) {
			t.note("gap: the store of %s was replaced by an older one, which has grown since: other events than those seen up to %d may stand under their ids; going on with event %d", f.feed, after, gap.Resumes)
			break
		}
		t.note("gap: %s ends at event %d, before event %d, which was seen: its store was replaced by an older one; what comes next has the id %d", f.feed, at[i], after, gap.Resumes)
	default:
		t.note("gap: after event %d of %s comes event %d (%s)", after, f.feed, gap.Resumes, gap.Reason)
	}
	f.cursor, f.closed = at[i], false // an older store may not have it closed
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
