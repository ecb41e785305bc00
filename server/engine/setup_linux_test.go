//go:build !386 && !s390x

package engine

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/storage/memory"
)

// world is an engine over a real hub, with sockets of TCP.
type world struct {
	t      *testing.T
	engine *Engine
	hub    *feed.Hub
	close  func() // as a server does it; at the end of the test at the latest
}

// overBoth runs a test with writes in batches, where the kernel takes them, and
// without.
func overBoth(t *testing.T, o Options, test func(*world)) {
	t.Helper()
	for _, o.Plain = range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%t", o.Plain), func(t *testing.T) { test(newWorld(t, o)) })
	}
}

func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	began := time.Now()
	o.Now = func() time.Duration { return time.Since(began) }
	bus := memory.NewBus()
	hub := feed.NewHub(feedtest.NewStore(), bus, feed.HubOptions{})
	e, err := New(hub, o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, engine: e, hub: hub}
	w.close = sync.OnceFunc(func() {
		hub.Close()
		e.Close()
		bus.Close()
	})
	t.Cleanup(w.close)
	return w
}

// script is a stream that says what a test has it say.
type script struct {
	t      *testing.T
	head   []byte // in front of it
	group  *feed.Subscriber
	closed chan error

	mu      sync.Mutex
	pieces  [][]byte
	end     error // behind the pieces
	over    error
	said    bool // the end, or over
	nexts   int
	written int
	repeats bool // what was not written
	yields  int
	ends    int
	hook    func() // called once, by the lane
}

func newScript(t *testing.T) *script { return &script{t: t, closed: make(chan error, 1)} }

// say has the stream say more, and end if err is not nil.
func (s *script) say(err error, pieces ...[]byte) {
	s.mu.Lock()
	s.pieces, s.end = append(s.pieces, pieces...), err
	s.mu.Unlock()
	s.group.Wake()
}

func (s *script) Next(time.Duration) (piece []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nexts++; s.said {
		s.t.Error("asked for more than it has")
	}
	if hook := s.hook; hook != nil {
		s.hook = nil
		hook()
	}
	switch {
	case s.over != nil:
		s.said = true
		return nil, s.over
	case len(s.pieces) > 0:
		piece, s.pieces = s.pieces[0], s.pieces[1:]
	}
	if len(s.pieces) == 0 {
		err = s.end
	}
	s.said = err != nil
	return piece, err
}

// asked returns how often the stream was asked.
func (s *script) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nexts
}

func (s *script) More() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pieces) > 0 || s.end != nil
}

func (s *script) Written() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written++
}

// Unwritten has the socket keep what is left, or, of a script that repeats, says
// that again.
func (s *script) Unwritten(_ int, left []byte) (keep []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.repeats || s.said {
		return bytes.Clone(left), nil
	}
	s.pieces = slices.Insert(s.pieces, 0, bytes.Clone(left))
	return nil, nil
}

func (s *script) Yield() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.yields++
}

func (s *script) Over(time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

func (s *script) Due() time.Duration { return time.Hour }

func (s *script) Closed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends++; s.ends > 1 {
		s.t.Errorf("closed again, with %v", err)
		return
	}
	s.group.Close()
	s.closed <- err
}

// ended returns with what the stream ended.
func (s *script) ended() error {
	s.t.Helper()
	select {
	case err := <-s.closed:
		return err
	case <-time.After(10 * time.Second):
		s.t.Fatal("the stream does not end")
		return nil
	}
}

// dial returns both ends of a connection, whose buffers have the size, or what
// the system gives them.
func (w *world) dial(size int) (ours, client *net.TCPConn) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	// A window that was once offered is not taken back, so it is small from the start.
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if size > 0 {
			err = c.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, size) })
		}
		return err
	}}
	dialed, err := d.Dial("tcp", l.Addr().String())
	if err != nil {
		w.t.Fatal(err)
	}
	accepted, err := l.Accept()
	if err != nil {
		w.t.Fatal(err)
	}
	ours, client = accepted.(*net.TCPConn), dialed.(*net.TCPConn)
	w.t.Cleanup(func() { client.Close() })
	if size > 0 {
		if err := ours.SetWriteBuffer(size); err != nil {
			w.t.Fatal(err)
		}
	}
	return ours, client
}

var starts = []feed.SubscribeRequest{{Feed: "a", From: feed.FromStart()}}

// take has the engine carry the stream on the connection.
func (w *world) take(conn net.Conn, s *script) *Socket {
	w.t.Helper()
	socket := w.engine.NewSocket()
	w.carry(socket, conn, s, s)
	return socket
}

// carry has the socket carry a stream on the connection, which is the script or
// made of it.
func (w *world) carry(socket *Socket, conn net.Conn, s *script, stream Stream) {
	w.t.Helper()
	group, err := socket.Lane().SubscribeAll(w.t.Context(), starts, socket)
	if err != nil {
		w.t.Fatal(err)
	}
	s.group = group
	if err := socket.Take(conn, s.head, group, stream); err != nil {
		w.t.Fatal(err)
	}
}

// stream opens a connection with a stream on it.
func (w *world) stream(size int) (*script, *net.TCPConn) {
	w.t.Helper()
	ours, client := w.dial(size)
	s := newScript(w.t)
	w.take(ours, s)
	return s, client
}

// noise is what streams are made of: wherever a stretch of it is in the wrong
// place, it shows.
var noise = func() []byte {
	b := make([]byte, 65_521)           // a prime, so that it does not repeat with any buffer
	rand.NewChaCha8([32]byte{}).Read(b) //nolint:errcheck // it always succeeds
	return b
}()

// numbered returns n bytes that say which they are, of the stream and in it.
func numbered(stream, from, n int) []byte {
	b := make([]byte, 0, n)
	for len(b) < n {
		at := (stream*4099 + from + len(b)) % len(noise)
		b = append(b, noise[at:min(len(noise), at+n-len(b))]...)
	}
	return b
}

// demand reads what there has to be, and then the end.
func demand(t *testing.T, who string, r io.Reader, stream, size int) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Errorf("%s: %v after %d bytes of %d", who, err, len(got), size)
		return
	}
	if want := numbered(stream, 0, size); !bytes.HasPrefix(want, got) {
		at := 0
		for at < min(size, len(got)) && got[at] == want[at] {
			at++
		}
		t.Errorf("%s: byte %d of %d is another", who, at, size)
	}
	if len(got) != size {
		t.Errorf("%s: %d bytes, want %d", who, len(got), size)
	}
}

// descriptors returns how many this process has.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// await waits for what must not take long.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 seconds", what)
		}
		time.Sleep(time.Millisecond) // until the lane has come to it
	}
}
