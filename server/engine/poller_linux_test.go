//go:build !386 && !s390x

package engine

import (
	"syscall"
	"testing"
	"time"
)

// TestPollerKeys: an event of a socket that was closed since does not reach the socket
// that now has its descriptor and its slot, which would cut off the wrong client.
func TestPollerKeys(t *testing.T) {
	w := newWorld(t, Options{WriteTimeout: time.Minute})
	var old key
	var stale []syscall.EpollEvent
	for i := range 100 {
		ours, client := w.dial(0)
		s := newScript(t)
		socket := w.take(ours, s)
		now := socket.key
		if i > 0 && (now.slot != old.slot || now.generation == old.generation) {
			t.Fatalf("the key %v after %v: want the same slot, and another generation", now, old)
		}
		w.engine.poller.handle(stale)
		s.send(nil, []byte("x"))
		await(t, "written", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.written == 1 })
		select {
		case err := <-s.closed:
			t.Fatalf("closed with %v for an event of another", err)
		default:
		}
		client.Close()
		if err := s.ended(); err != ErrClientGone {
			t.Fatal(err)
		}
		old = now
		stale = append(stale, syscall.EpollEvent{Events: syscall.EPOLLHUP | syscall.EPOLLRDHUP, Fd: int32(old.slot), Pad: int32(old.generation)})
	}
	if n := len(w.engine.poller.slots); n != 1 {
		t.Errorf("%d slots for one socket at a time", n)
	}
}
