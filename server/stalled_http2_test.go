package server_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	h2 "golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/rejoin/rejoin/server"
)

// TestStalledReaderAmongMany: each of twenty browsers follows a feed with a hundred streams
// over one connection. One reader of each stalls; the other 99 miss nothing, neither
// before nor after the server has reset that one.
func TestStalledReaderAmongMany(t *testing.T) {
	t.Parallel()
	for timeout := range longer(t, 3*time.Second) {
		if stallAmongMany(t, 20, timeout) {
			break
		}
	}
}

func BenchmarkStalledReaderAmongMany(b *testing.B) {
	for b.Loop() {
		if !stallAmongMany(b, 100, 3*time.Second) {
			b.Fatal("a connection was broken off")
		}
	}
}

// stallAmongMany reports false if a connection or another stream was broken off: on a slow
// machine, a browser can take longer than the timeout to read.
func stallAmongMany(t testing.TB, browsers int, timeout time.Duration) bool {
	const streams, before, after = 100, 20, 5
	handler, end := newHandler(newKeeper(t))
	s := handler.(*server.Server)
	t.Cleanup(s.Close)
	t.Cleanup(end)
	s.Reconfigure(server.Options{WriteTimeout: timeout})
	publish := func(count int) {
		t.Helper()
		for range count {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest(http.MethodPost, events, strings.NewReader(strings.Repeat("x", 500))))
			if w.Code != http.StatusCreated {
				t.Fatal(w.Code, w.Body)
			}
		}
	}
	results := make(chan error, browsers)
	var all []*manyStreams
	for range browsers {
		client, ours := tcpPair(t)
		if !s.ServeHTTP2(&http.Server{Handler: s}, ours) {
			t.Fatal("the engine does not take the connection")
		}
		m := &manyStreams{conn: client, framer: h2.NewFramer(client, client), got: make([]bytes.Buffer, streams)}
		t.Cleanup(func() { client.Close() })
		all = append(all, m)
		if err := m.open(); err != nil {
			t.Fatal(err)
		}
	}
	wait := func(what string, read func(m *manyStreams) error) bool {
		for _, m := range all {
			go func() { results <- read(m) }()
		}
		good := true
		for range all {
			if err := <-results; err != nil {
				t.Logf("with a timeout of %v, %s: %v", timeout, what, err)
				good = false
			}
		}
		return good
	}
	if !wait("at the beginning", func(m *manyStreams) error { return m.readUntil("event: feed.open", true) }) {
		return false
	}
	publish(before)
	if !wait("while one stalls", func(m *manyStreams) error { return m.readUntil(fmt.Sprintf("id: %d\n\n", before), false) }) ||
		!wait("when it is reset", (*manyStreams).readReset) {
		return false
	}
	publish(after)
	return wait("after that", func(m *manyStreams) error { return m.readUntil(fmt.Sprintf("id: %d\n\n", before+after), false) })
}

// manyStreams is a browser with many streams over one connection. The first of them grants
// no window beyond the initial one.
type manyStreams struct {
	conn   net.Conn
	framer *h2.Framer
	got    []bytes.Buffer
	reset  bool // the first one was reset
}

func (m *manyStreams) open() error {
	_ = m.conn.SetDeadline(time.Now().Add(5 * time.Minute))
	var head, out bytes.Buffer
	encoder, writer := hpack.NewEncoder(&head), h2.NewFramer(&out, nil)
	_ = writer.WriteSettings(h2.Setting{ID: h2.SettingInitialWindowSize, Val: 4096})
	_ = writer.WriteWindowUpdate(0, 1<<30)
	for i := range m.got {
		head.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "localhost"}, {":path", events}, {"accept", "text/event-stream"}} {
			_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
		}
		_ = writer.WriteHeaders(h2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true})
		if i > 0 {
			_ = writer.WriteWindowUpdate(uint32(2*i+1), 1<<20)
		}
	}
	_, err := out.WriteTo(m.conn)
	return err
}

// readUntil reads until all streams but the first, or all of them, have got the text.
func (m *manyStreams) readUntil(text string, first bool) error {
	missing := 0
	for i := range m.got {
		if (i > 0 || first) && !bytes.Contains(m.got[i].Bytes(), []byte(text)) {
			missing++
		}
	}
	for missing > 0 {
		i, err := m.read()
		if err != nil {
			return fmt.Errorf("%d streams miss %q: %w", missing, text, err)
		}
		if (i > 0 || first && i == 0) && bytes.HasSuffix(m.got[i].Bytes(), []byte("\n\n")) && bytes.Contains(m.got[i].Bytes(), []byte(text)) {
			m.got[i].Reset()
			missing--
		}
	}
	return nil
}

// readReset reads until the first stream was reset.
func (m *manyStreams) readReset() error {
	for !m.reset {
		if _, err := m.read(); err != nil {
			return err
		}
	}
	return nil
}

// read reads a frame. It returns the stream that got data by it, or -1.
func (m *manyStreams) read() (stream int, err error) {
	f, err := m.framer.ReadFrame()
	if err != nil {
		return -1, err
	}
	switch f := f.(type) {
	case *h2.DataFrame:
		m.got[f.StreamID/2].Write(f.Data())
		return int(f.StreamID / 2), nil
	case *h2.RSTStreamFrame:
		if f.StreamID != 1 {
			return -1, fmt.Errorf("stream %d was reset", f.StreamID)
		}
		m.reset = true
	case *h2.GoAwayFrame:
		return -1, fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, f)
	}
	return -1, nil
}
