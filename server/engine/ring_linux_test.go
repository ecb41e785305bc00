//go:build !386 && !s390x

package engine

import (
	"errors"
	"syscall"
	"testing"
	"time"
)

// aRing returns a ring, or false if the kernel refuses rings to this process. Any other
// failure fails the test.
func aRing(t *testing.T) (*ring, bool) {
	t.Helper()
	r, err := openRing()
	if errors.Is(err, syscall.ENOSYS) || errors.Is(err, syscall.EPERM) {
		if newRing() != nil {
			t.Error("a ring where the kernel has none")
		}
		t.Logf("the kernel refuses rings to this process: %v", err)
		return nil, false
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r, true
}

// TestRingProbe: a ring of this kernel passes the probe, which leaves no descriptor open.
// A wrong refusal would go unnoticed and cost a third of the speed.
func TestRingProbe(t *testing.T) {
	if _, ok := aRing(t); !ok {
		return
	}
	before := descriptors(t)
	for range 20 {
		r := newRing()
		if r == nil {
			t.Fatal("the probe refuses the ring")
		}
		r.close()
	}
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}

// TestRingBatch: each write of a batch has its own result, even if its neighbours fail.
func TestRingBatch(t *testing.T) {
	r, ok := aRing(t)
	if !ok {
		return
	}
	pair := func() (ours, theirs int) {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fds[0]) })
		return fds[0], fds[1]
	}
	good, reader := pair()
	defer syscall.Close(reader)
	left, gone := pair()
	syscall.Close(gone)
	full, unread := pair()
	defer syscall.Close(unread)
	for err := error(nil); err == nil; {
		_, err = send(full, make([]byte, 1<<16), 0)
	}
	kinds := []struct {
		fd   int
		err  error
		make func(*sqe)
	}{
		{good, nil, nil},
		{-1, syscall.EBADF, nil},
		{left, syscall.EPIPE, nil},
		{full, syscall.EAGAIN, nil},
		// The kernel stops in the middle of the batch.
		{good, syscall.EINVAL, func(e *sqe) { e.op = 255 }},
	}
	data := make([]byte, ringWrites)
	for i := range data {
		data[i] = byte(i)
	}
	for round := range 3 {
		for i := range ringWrites {
			kind := kinds[i%len(kinds)]
			r.prepare(i, kind.fd, data[i:i+1])
			if kind.make != nil {
				kind.make(&r.sqes[(*r.sqTail+uint32(i))&r.sqMask])
			}
		}
		done := make(chan struct{})
		go func() { defer close(done); r.enter(ringWrites) }()
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Fatal("the batch does not end")
		}
		seen := make([]int, ringWrites)
		r.reap(func(i, n int, err error) {
			kind := kinds[i%len(kinds)]
			if seen[i]++; !errors.Is(err, kind.err) || (err == nil) != (n == 1) {
				t.Errorf("round %d, write %d: %d, %v; want %v", round, i, n, err, kind.err)
			}
		})
		var want []byte
		for i, n := range seen {
			if n != 1 {
				t.Errorf("round %d, write %d has %d results", round, i, n)
			}
			if i%len(kinds) == 0 {
				want = append(want, byte(i))
			}
		}
		got := make([]byte, 2*ringWrites)
		if n, err := syscall.Read(reader, got); err != nil || string(got[:n]) != string(want) {
			t.Errorf("round %d: read % x (%v), want % x", round, got[:max(n, 0)], err, want)
		}
	}
}

// TestBatchOfAllKinds: each socket of a batch gets its own result.
func TestBatchOfAllKinds(t *testing.T) {
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		const streams, size = 90, 512 << 10
		var all []*script
		for n := range streams {
			s, client := w.stream(64 << 10)
			all = append(all, s)
			switch n % 3 {
			case 1:
				client.Close() // before it is written to, or in between, or after
			case 2:
				defer func() { demand(w.t, "a full one", client, n, size) }()
			}
		}
		for n, s := range all {
			if n%3 == 2 {
				s.send(nil, numbered(n, 0, size))
			} else {
				s.send(nil, []byte("x"))
			}
		}
		for n, s := range all {
			switch n % 3 {
			case 0:
				await(w.t, "written", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.written == 1 })
			case 1:
				_ = s.ended()
			case 2:
				s.send(errors.New("done"))
			}
		}
	})
}

// TestNothingStagedOutlivesItsSocket: a client leaves after its write was staged and
// before the batch is submitted, and another connection gets the descriptor in between.
// It must not get the first client's bytes.
func TestNothingStagedOutlivesItsSocket(t *testing.T) {
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		leaver, client := w.dial(0)
		s := newScript(w.t)
		leaving := w.take(leaver, s)
		var other *script
		for other == nil { // on the same worker
			ours, _ := w.dial(0)
			candidate := newScript(w.t)
			if w.take(ours, candidate).worker == leaving.worker {
				other = candidate
			}
		}
		await(w.t, "idle", func() bool { return s.asked() > 0 })
		done := make(chan [2]int)
		other.mu.Lock()
		other.hook = func() { // all of this happens within one step of the worker
			fd := int(leaving.fd)
			s.mu.Lock()
			s.pieces = [][]byte{[]byte("x")}
			s.mu.Unlock()
			leaving.Notify()
			if leaving.worker.ring != nil && !leaving.staged {
				w.t.Error("it is not staged")
			}
			leaving.flags.Or(clientGone)
			leaving.Notify()
			var pair [2]int
			var opened []int
			w.t.Cleanup(func() {
				for _, fd := range opened {
					_ = syscall.Close(fd)
				}
			})
			for tries := 0; pair[0] != fd; tries++ { // until the descriptor is used again
				var err error
				if pair, err = syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0); err != nil || tries == 100 {
					w.t.Errorf("descriptor %d is not used again: %v", fd, err)
					break
				}
				opened = append(opened, pair[0], pair[1])
				if pair[1] == fd {
					pair[0], pair[1] = pair[1], pair[0]
				}
			}
			go func() { done <- pair }()
		}
		other.mu.Unlock()
		other.Wake()
		pair := <-done
		other.send(nil, []byte("y")) // in a later batch
		await(w.t, "the batch is submitted", func() bool { other.mu.Lock(); defer other.mu.Unlock(); return other.written > 0 })
		got := make([]byte, 10)
		if n, _, err := syscall.Recvfrom(pair[1], got, syscall.MSG_DONTWAIT); err != syscall.EAGAIN {
			w.t.Errorf("the new owner of the descriptor gets %q (%v)", got[:max(n, 0)], err)
		}
		_ = client.SetReadDeadline(time.Now().Add(time.Minute))
		if n, err := client.Read(got); string(got[:n]) != "x" {
			w.t.Errorf("the client that left gets %q (%v)", got[:n], err)
		}
		if err := s.ended(); err != ErrClientGone {
			w.t.Error(err)
		}
	})
}
