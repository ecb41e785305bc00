package h2

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/rejoin/rejoin/server/engine"
)

// answerBytes is how much of an answer is written at a time.
const answerBytes = 16 << 10

// response is an ordinary answer. The handler writes it, and the connection reads it as
// an [engine.Stream].
type response struct {
	stream *Stream
	head   bool // the request's method is HEAD
	header http.Header

	// For the handler alone.
	status int
	buffer []byte
	sent   bool // the head was sent

	mu       sync.Mutex
	changed  chan struct{}
	chunk    []byte // to be written
	done     bool   // nothing follows the chunk
	err      error  // why nothing more can be written
	failed   error  // why the answer breaks off after the chunk
	deadline time.Time
}

var _ engine.Stream = (*response)(nil)

// responses holds those that no connection has read, because a stream took their place.
var responses = sync.Pool{New: func() any {
	return &response{header: make(http.Header), changed: make(chan struct{}, 1)}
}}

func newResponse(st *Stream, r *http.Request) *response {
	w := responses.Get().(*response)
	w.stream, w.head = st, r.Method == http.MethodHead
	if timeout := st.conn.server.options.AnswerTimeout; timeout > 0 {
		w.deadline = time.Now().Add(timeout)
	}
	return w
}

// Header implements [http.ResponseWriter].
func (w *response) Header() http.Header { return w.header }

// WriteHeader implements [http.ResponseWriter].
func (w *response) WriteHeader(status int) {
	switch {
	case w.status != 0:
	case status >= 100 && status < 200:
		w.stream.inform(status)
	default:
		w.status = status
	}
}

// Write implements [http.ResponseWriter].
func (w *response) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if w.head {
		return len(b), nil
	}
	for written := 0; ; {
		n := min(len(b)-written, answerBytes-len(w.buffer))
		w.buffer = append(w.buffer, b[written:written+n]...)
		if written += n; written == len(b) {
			return written, nil
		}
		if err := w.FlushError(); err != nil {
			return written, err
		}
	}
}

func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

// Flush implements [http.Flusher].
func (w *response) Flush() { _ = w.FlushError() }

// FlushError is for [http.ResponseController]. It returns when the connection has taken
// everything, or nothing can be written any more.
func (w *response) FlushError() error {
	w.WriteHeader(http.StatusOK)
	if err := w.send(false, nil); err != nil {
		return err
	}
	for {
		w.mu.Lock()
		taken, err, deadline := len(w.chunk) == 0, w.err, w.deadline
		w.mu.Unlock()
		switch {
		case err != nil:
			return err
		case taken:
			w.buffer = w.buffer[:0]
			return nil
		}
		if !await(w.changed, deadline) {
			w.abandon(os.ErrDeadlineExceeded)
			return os.ErrDeadlineExceeded
		}
	}
}

// send hands the head, if it was not sent yet, and the buffer to the connection.
func (w *response) send(done bool, failed error) error {
	w.mu.Lock()
	err := w.err
	w.chunk, w.done, w.failed = w.buffer, done, failed
	w.mu.Unlock()
	if err != nil {
		return err
	}
	if w.sent {
		w.stream.again()
		return nil
	}
	w.sent = true
	w.fillHeader(done && failed == nil)
	empty := done && failed == nil && len(w.buffer) == 0
	if err := w.stream.take(encodeHead(w.stream.id, w.status, w.header, empty), empty, nil, w); err != nil {
		w.Closed(err) // also for what is written after this
		return err
	}
	return nil
}

// fillHeader adds what a handler need not say.
func (w *response) fillHeader(whole bool) {
	h := w.header
	if whole && h["Content-Length"] == nil && bodyAllowed(w.status) && !w.head {
		h["Content-Length"] = []string{strconv.Itoa(len(w.buffer))}
	}
	if h["Content-Type"] == nil && len(w.buffer) > 0 && h["Content-Encoding"] == nil {
		h["Content-Type"] = []string{http.DetectContentType(w.buffer)}
	}
	if h.Get("Connection") == "close" {
		w.stream.conn.stop()
	}
}

// finish ends the answer after the handler has returned, or panicked with a value.
func (w *response) finish(value any) {
	w.stream.conn.mu.Lock()
	taken := !w.sent && (w.stream.source != nil || w.stream.begun != nil || w.stream.gone != nil)
	w.stream.conn.mu.Unlock()
	if taken && value == nil {
		w.recycle()
		return
	}
	if value != nil && value != http.ErrAbortHandler {
		w.stream.conn.server.options.Logger.Error("request failed", "from", w.stream.conn.remote, "error", fmt.Sprintf("panic: %v\n%s", value, debug.Stack()))
	}
	switch {
	case taken:
	case value != nil && w.status == 0:
		w.stream.reset()
	case value != nil:
		_ = w.send(true, errAborted)
	default:
		w.WriteHeader(http.StatusOK)
		_ = w.send(true, nil)
	}
}

// recycle makes the response serve another request.
func (w *response) recycle() {
	clear(w.header)
	select {
	case <-w.changed:
	default:
	}
	*w = response{header: w.header, changed: w.changed}
	responses.Put(w)
}

var errAborted = errors.New("h2: the handler has aborted the answer")

// abandon makes the connection break the answer off.
func (w *response) abandon(why error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = why
	}
	w.mu.Unlock()
	w.stream.reset()
}

// SetReadDeadline is for [http.ResponseController].
func (w *response) SetReadDeadline(t time.Time) error {
	if w.stream.body != nil {
		w.stream.body.setDeadline(t)
	}
	return nil
}

// SetWriteDeadline is for [http.ResponseController].
func (w *response) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deadline = t
	poke(w.changed)
	return nil
}

// EnableFullDuplex is for [http.ResponseController]. HTTP/2 always is.
func (w *response) EnableFullDuplex() error { return nil }

// Wake implements [engine.Stream].
func (w *response) Wake() { w.stream.again() }

// Next implements [engine.Stream].
func (w *response) Next(time.Duration) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.failed != nil:
		return w.chunk, w.failed
	case w.done:
		return w.chunk, io.EOF
	}
	return w.chunk, nil
}

// More implements [engine.Stream].
func (w *response) More() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.chunk) > 0 || w.done
}

// Written implements [engine.Stream].
func (w *response) Written() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chunk = nil
	poke(w.changed)
}

// Unwritten implements [engine.Stream].
func (w *response) Unwritten(_ int, left []byte) (keep []byte, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chunk = left
	return nil, nil
}

// Held implements [engine.Stream].
func (w *response) Held(int) error { return nil }

// Yield implements [engine.Stream].
func (w *response) Yield() {}

// Over implements [engine.Stream].
func (w *response) Over(time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Due implements [engine.Stream].
func (w *response) Due() time.Duration { return century }

// Closed implements [engine.Stream].
func (w *response) Closed(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = why
	}
	poke(w.changed)
}

// again makes the connection look at the source again.
func (st *Stream) again() {
	st.conn.mu.Lock()
	defer st.conn.mu.Unlock()
	if st.gone == nil {
		st.arrive()
	}
}

// reset makes the connection break the stream off.
func (st *Stream) reset() {
	st.conn.mu.Lock()
	defer st.conn.mu.Unlock()
	if st.gone == nil {
		st.broken = true
		st.arrive()
	}
}
