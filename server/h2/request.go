package h2

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// handleHead handles the head of a request, or the trailers behind its body.
func (c *Conn) handleHead(h *readHead) error {
	id := h.id
	malformed := http2.StreamError{StreamID: id, Code: http2.ErrCodeProtocol}
	if id%2 == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if h.dependsOn == id {
		return malformed
	}
	if st := c.streams[id]; st != nil {
		return c.handleTrailers(st, h)
	}
	if id <= c.lastID {
		if h.ends && h.pseudo == (pseudoFields{}) {
			return c.spend(1) // trailers that have crossed the end of the answer
		}
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	}
	c.lastID = id
	if c.stopSent {
		return c.spend(1) // the client knows that it was not served
	}
	c.served = id
	c.mu.Lock()
	full := len(c.streams) >= c.server.options.Streams || c.running >= 2*c.server.options.Streams
	c.mu.Unlock()
	if full {
		return http2.StreamError{StreamID: id, Code: http2.ErrCodeRefusedStream}
	}
	if h.incomplete {
		c.push(encodeHead(id, http.StatusRequestHeaderFieldsTooLarge, nil, true))
		c.push(appendReset(nil, id, http2.ErrCodeNo))
		return c.spend(10)
	}
	st := &Stream{conn: c, id: id, window: c.initialWindow, clientEnded: h.ends}
	r, ok := c.newRequest(st, h)
	if !ok {
		return malformed
	}
	c.streams[id] = st
	c.mu.Lock()
	c.running++
	c.mu.Unlock()
	c.server.handlers.add(request{st, r})
	return nil
}

// handleTrailers handles what follows a body.
func (c *Conn) handleTrailers(st *Stream, h *readHead) error {
	switch {
	case st.clientEnded:
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	case !h.ends, h.pseudo != pseudoFields{}, st.body.announced > 0, h.incomplete:
		return http2.StreamError{StreamID: st.id, Code: http2.ErrCodeProtocol}
	}
	trailer := make(http.Header)
	for _, field := range h.fields {
		trailer.Add(field.Name, field.Value)
	}
	st.body.trailers(trailer)
	c.endBody(st)
	return c.spend(1)
}

// newRequest reports false for a malformed request (RFC 9113, section 8).
func (c *Conn) newRequest(st *Stream, h *readHead) (*http.Request, bool) {
	method, scheme, path, authority := h.pseudo.method, h.pseudo.scheme, h.pseudo.path, h.pseudo.authority
	if method == "" || path == "" || scheme != "https" && scheme != "http" || method == http.MethodConnect {
		return nil, false
	}
	if path[0] != '/' && !(path == "*" && method == http.MethodOptions) {
		return nil, false
	}
	header, announced, ok := readHeader(h.fields)
	if !ok || st.clientEnded && announced > 0 {
		return nil, false
	}
	host, ok := hostOf(authority, header)
	if !ok {
		return nil, false
	}
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return nil, false
	}
	ctx, cancel := context.WithCancel(&requestContext{c.context, st})
	st.cancel = cancel
	r := (&http.Request{
		Method: method, URL: u, RequestURI: path, Host: host, Header: header, Body: http.NoBody,
		Proto: "HTTP/2.0", ProtoMajor: 2, RemoteAddr: c.remote, TLS: c.tls,
	}).WithContext(ctx)
	if !st.clientEnded {
		st.body = newBody(st, r, announced)
		r.Body, r.ContentLength = st.body, announced
	}
	return r, true
}

// hostOf returns the host that a request is for and removes it from the header. It reports
// false if the host is not valid or not clear (RFC 9113, section 8.3.1).
func hostOf(authority string, header http.Header) (string, bool) {
	hosts := header["Host"]
	delete(header, "Host")
	switch {
	case len(hosts) > 1, len(hosts) == 1 && authority != "" && hosts[0] != authority:
		return "", false
	case len(hosts) == 1:
		authority = hosts[0]
	}
	return authority, httpguts.ValidHostHeader(authority) && !strings.Contains(authority, "@")
}

// readHeader reads the regular fields of a head, and the Content-Length among them, which
// is -1 without one. It reports false if they are malformed.
func readHeader(fields []hpack.HeaderField) (header http.Header, announced int64, ok bool) {
	header = make(http.Header, len(fields))
	values := make([]string, len(fields)) // backs the values of all fields
	for i, field := range fields {
		if connectionOnly(field.Name) || field.Name == "te" && field.Value != "trailers" {
			return nil, 0, false
		}
		name := http.CanonicalHeaderKey(field.Name)
		if present := header[name]; present == nil {
			values[i] = field.Value
			header[name] = values[i : i+1 : i+1]
		} else if name == "Cookie" {
			present[0] += "; " + field.Value
		} else {
			header[name] = append(present, field.Value)
		}
	}
	if length := header["Content-Length"]; length != nil {
		n, err := strconv.ParseUint(length[0], 10, 63)
		return header, int64(n), err == nil && len(length) == 1
	}
	return header, -1, true
}

// serve runs the handler of the stream's request.
func (st *Stream) serve(r *http.Request) {
	c := st.conn
	w := newResponse(st, r)
	defer func() {
		c.mu.Lock()
		cancel := st.cancel
		st.cancel = nil // or a long stream keeps its request
		c.mu.Unlock()
		if cancel != nil {
			cancel()
		}
		w.finish(recover())
		if st.body != nil {
			st.consume(st.body.fail(errStreamGone))
		}
		c.mu.Lock()
		c.running--
		c.mu.Unlock()
	}()
	c.server.options.Handler.ServeHTTP(w, r)
}

// body is the body of a request.
type body struct {
	stream *Stream
	asks   bool          // the client waits for 100 Continue
	into   *http.Request // gets the trailers

	// For the connection alone.
	credit    int32 // bytes that the client may send
	refund    int32 // bytes of that which were used and are free again
	announced int64 // bytes that the client has still to send; -1 if that is not known

	consumed int32 // bytes that the handler has read; guarded by conn.mu

	mu       sync.Mutex
	changed  chan struct{} // has a token when there is something new
	buffer   []byte
	err      error // after the buffer
	trailer  http.Header
	deadline time.Time
}

func newBody(st *Stream, r *http.Request, announced int64) *body {
	asks := strings.EqualFold(r.Header.Get("Expect"), "100-continue")
	if asks {
		r.Header.Del("Expect")
	}
	if names := r.Header["Trailer"]; names != nil {
		r.Trailer = make(http.Header)
		for _, name := range names {
			for one := range strings.SplitSeq(name, ",") {
				switch name := http.CanonicalHeaderKey(strings.TrimSpace(one)); name {
				case "Transfer-Encoding", "Trailer", "Content-Length": // no handler expects these there
				default:
					r.Trailer[name] = nil
				}
			}
		}
		delete(r.Header, "Trailer")
	}
	return &body{stream: st, asks: asks, into: r, credit: streamWindow, announced: announced, changed: make(chan struct{}, 1)}
}

// add appends what the client has sent. It reports false if nobody reads it.
func (b *body) add(data []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err != nil {
		return false
	}
	b.buffer = append(b.buffer, data...)
	poke(b.changed)
	return true
}

// end notes that the body is complete.
func (b *body) end() { b.fail(io.EOF) }

// fail ends the body with an error. Unless that is io.EOF, it returns how many bytes
// nobody will read.
func (b *body) fail(err error) (dropped int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != io.EOF {
		dropped = int32(len(b.buffer))
		b.buffer = nil
	}
	if b.err == nil {
		b.err = err
	}
	poke(b.changed)
	return dropped
}

func (b *body) trailers(h http.Header) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trailer = h
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	if b.asks {
		b.asks = false
		b.stream.inform(http.StatusContinue)
	}
	for {
		n, deadline, err := b.take(p)
		if n > 0 || err != nil || len(p) == 0 {
			if n > 0 {
				b.stream.consume(int32(n))
			}
			return n, err
		}
		if !await(b.changed, deadline) {
			return 0, os.ErrDeadlineExceeded
		}
	}
}

func (b *body) take(p []byte) (n int, deadline time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.buffer) > 0 {
		n = copy(p, b.buffer)
		if b.buffer = b.buffer[n:]; len(b.buffer) == 0 {
			b.buffer = nil
		}
		return n, b.deadline, nil
	}
	if b.err == io.EOF && b.into.Trailer != nil {
		for name := range b.into.Trailer {
			b.into.Trailer[name] = b.trailer[name]
		}
	}
	return 0, b.deadline, b.err
}

// Close implements [io.Closer].
func (b *body) Close() error {
	b.stream.consume(b.fail(http.ErrBodyReadAfterClose))
	return nil
}

func (b *body) setDeadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.deadline = t
	poke(b.changed)
}

// consume lets the client send n bytes more of the body.
func (st *Stream) consume(n int32) {
	c := st.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	c.consumed += n
	if st.body.consumed += n; st.gone == nil && st.body.consumed >= streamWindow/8 {
		st.arrive()
	} else if c.consumed >= connWindow/8 {
		c.socket.Wake()
	}
}

// inform sends an informational answer.
func (st *Stream) inform(status int) {
	c := st.conn
	head := encodeHead(st.id, status, nil, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	if st.gone == nil && st.begun == nil && st.source == nil {
		c.control = append(c.control, head...)
		c.socket.Wake()
	}
}

// poke puts a token into a channel of capacity 1.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// await waits for a token until the deadline, if there is one.
func await(c <-chan struct{}, deadline time.Time) bool {
	if deadline.IsZero() {
		<-c
		return true
	}
	left := time.Until(deadline)
	if left <= 0 {
		return false
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-c:
	case <-timer.C: // the deadline may have been moved
	}
	return true
}
