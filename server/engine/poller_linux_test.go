//go:build !386 && !s390x

package engine

import (
	"syscall"
	"testing"
	"time"
)

// TestPollerKeys: what is said of a socket that was closed in the meantime does not
// reach the one that has its descriptor and its place now: that client would be
// cut off, and nobody would know why.
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
			t.Fatalf("the key %v after %v: want the same place, for another time", now, old)
		}
		w.engine.poller.handle(stale)
		s.say(nil, []byte("x"))
		await(t, "written", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.written == 1 })
		select {
		case err := <-s.closed:
			t.Fatalf("closed with %v for what was said of another", err)
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
		t.Errorf("%d places for one socket at a time", n)
	}
}
