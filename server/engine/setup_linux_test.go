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
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// world is an engine with TCP sockets.
type world struct {
	t       *testing.T
	engine  *Engine
	streams atomic.Int64 // taken and not closed yet
	close   func()       // the engine; the end of the test calls it at the latest
}

// queue is a dispatcher that calls sockets in the order in which they were woken, a few
// in each step.
type queue struct {
	more chan struct{}

	mu      sync.Mutex
	sockets []*Socket
	queued  map[*Socket]bool
}

// stepSockets is how many sockets a step calls.
const stepSockets = 64

func newQueue() Dispatcher {
	return &queue{more: make(chan struct{}, 1), queued: make(map[*Socket]bool)}
}

func (q *queue) C() <-chan struct{} { return q.more }

func (q *queue) Step() (more bool) {
	q.mu.Lock()
	n := min(len(q.sockets), stepSockets)
	batch := slices.Clone(q.sockets[:n])
	q.sockets = slices.Delete(q.sockets, 0, n)
	for _, s := range batch {
		delete(q.queued, s)
	}
	more = len(q.sockets) > 0
	q.mu.Unlock()
	for _, s := range batch {
		s.Notify()
	}
	return more
}

func (q *queue) wake(s *Socket) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.queued[s] {
		return
	}
	q.queued[s] = true
	q.sockets = append(q.sockets, s)
	select {
	case q.more <- struct{}{}:
	default:
	}
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
	e, err := New(newQueue, o)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, engine: e, close: sync.OnceFunc(e.Close)}
	t.Cleanup(w.close)
	return w
}

// script is a stream that sends the bytes that a test gives it.
type script struct {
	t      *testing.T
	world  *world
	socket *Socket
	head   []byte // written before the pieces
	closed chan error

	mu      sync.Mutex
	pieces  [][]byte
	end     error // comes with the last piece
	over    error
	ending  bool // Next has returned end or over
	nexts   int
	written int
	repeats bool // Unwritten puts the unwritten bytes back
	yields  int
	most    int // of Held
	ends    int
	hook    func() // the next call of Next calls it
}

func newScript(t *testing.T) *script { return &script{t: t, closed: make(chan error, 1)} }

// send adds pieces to the stream, and the end if err is not nil.
func (s *script) send(err error, pieces ...[]byte) {
	s.mu.Lock()
	s.pieces, s.end = append(s.pieces, pieces...), err
	s.mu.Unlock()
	s.Wake()
}

func (s *script) Wake() { s.socket.Dispatcher().(*queue).wake(s.socket) }

func (s *script) Next(time.Duration) (piece []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nexts++; s.ending {
		s.t.Error("Next was called after the end")
	}
	if hook := s.hook; hook != nil {
		s.hook = nil
		hook()
	}
	switch {
	case s.over != nil:
		s.ending = true
		return nil, s.over
	case len(s.pieces) > 0:
		piece, s.pieces = s.pieces[0], s.pieces[1:]
	}
	if len(s.pieces) == 0 {
		err = s.end
	}
	s.ending = err != nil
	return piece, err
}

// asked returns how often Next was called.
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

// Unwritten makes the socket keep the bytes, or puts them back if the script repeats.
func (s *script) Unwritten(_ int, left []byte) (keep []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.repeats || s.ending {
		return bytes.Clone(left), nil
	}
	s.pieces = slices.Insert(s.pieces, 0, bytes.Clone(left))
	return nil, nil
}

func (s *script) Held(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.most = max(s.most, n)
	return nil
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
	s.world.streams.Add(-1)
	s.closed <- err
}

// ended returns the error with which the stream ended.
func (s *script) ended() error {
	s.t.Helper()
	select {
	case err := <-s.closed:
		return err
	case <-time.After(time.Minute):
		s.t.Fatal("the stream does not end")
		return nil
	}
}

// dial returns both ends of a connection whose buffers have the size; 0 means the
// system's default.
func (w *world) dial(size int) (ours, client *net.TCPConn) {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	// TCP never shrinks a window, so it has to be small from the start. Packets are as
	// small as on Ethernet: for one of the loopback's, which does not fit into such a
	// window, the kernel waits longer and longer.
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if size > 0 {
			err = c.Control(func(fd uintptr) {
				_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1400)
				_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, size)
			})
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

// take makes the engine carry the stream on the connection.
func (w *world) take(conn net.Conn, s *script) *Socket {
	w.t.Helper()
	socket := w.engine.NewSocket()
	w.carry(socket, conn, s, s)
	return socket
}

// carry makes the socket carry a stream on the connection. The stream is the script or
// wraps it.
func (w *world) carry(socket *Socket, conn net.Conn, s *script, stream Stream) {
	w.t.Helper()
	s.world, s.socket = w, socket
	w.streams.Add(1)
	if err := socket.Take(conn, s.head, stream); err != nil {
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

// noise is the content of streams: a piece of it in the wrong place is noticed.
var noise = func() []byte {
	b := make([]byte, 65_521)           // a prime, so that it does not repeat with any buffer
	rand.NewChaCha8([32]byte{}).Read(b) //nolint:errcheck // it always succeeds
	return b
}()

// numbered returns n bytes that show which stream they belong to, and where in it.
func numbered(stream, from, n int) []byte {
	b := make([]byte, 0, n)
	for len(b) < n {
		at := (stream*4099 + from + len(b)) % len(noise)
		b = append(b, noise[at:min(len(noise), at+n-len(b))]...)
	}
	return b
}

// demand fails the test unless r has exactly the stream's bytes, and then ends.
func demand(t *testing.T, name string, r io.Reader, stream, size int) {
	t.Helper()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Errorf("%s: %v after %d bytes of %d", name, err, len(got), size)
		return
	}
	if want := numbered(stream, 0, size); !bytes.HasPrefix(want, got) {
		at := 0
		for at < min(size, len(got)) && got[at] == want[at] {
			at++
		}
		t.Errorf("%s: byte %d of %d differs", name, at, size)
	}
	if len(got) != size {
		t.Errorf("%s: %d bytes, want %d", name, len(got), size)
	}
}

// descriptors returns how many descriptors this process has open.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// await waits up to a minute for a condition.
func await(t *testing.T, name string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", name)
		}
		time.Sleep(time.Millisecond) // the worker needs it
	}
}
