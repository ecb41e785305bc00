//go:build !386 && !s390x

package engine

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestPartialWrites: a socket that fills up again and again still gets all bytes, once
// and in order.
func TestPartialWrites(t *testing.T) {
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		const streams, pieces = 20, 60
		var work sync.WaitGroup
		for n := range streams {
			ours, client := w.dial(4096)
			s := newScript(w.t)
			s.repeats = n%2 == 0 // the others make the socket keep the rest
			w.take(ours, s)
			size := 0
			for i := range pieces {
				piece := numbered(n, size, 1+rand.IntN([]int{10, 1000, 40_000}[i%3]))
				size += len(piece)
				s.send(nil, piece)
			}
			s.send(io.EOF)
			work.Go(func() {
				demand(w.t, fmt.Sprint("stream ", n), slowly{client}, n, size)
				if err := s.ended(); err != io.EOF || s.written == 0 {
					w.t.Errorf("stream %d ended with %v, written %d times", n, err, s.written)
				}
			})
		}
		work.Wait()
	})
}

// TestHead: the head of a stream comes first and complete, even if the socket has no
// room for it. A client that leaves or stalls during the head is noticed as at any
// other time.
func TestHead(t *testing.T) {
	take := func(w *world, size int, quiet bool) (*script, *net.TCPConn) {
		ours, client := w.dial(64 << 10)
		s := newScript(w.t)
		s.head = numbered(0, 0, size)
		piece := numbered(0, size, 1000)
		if quiet {
			w.take(ours, s)
			await(w.t, "the head has been tried", func() bool { return s.asked() > 0 })
			s.send(io.EOF, piece)
		} else {
			s.pieces, s.end = [][]byte{piece}, io.EOF
			w.take(ours, s)
		}
		return s, client
	}
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		for _, size := range []int{0, 100, 1 << 20} {
			for _, quiet := range []bool{false, true} {
				s, client := take(w, size, quiet)
				demand(w.t, fmt.Sprint("behind ", size, " bytes"), client, 0, size+1000)
				if err := s.ended(); err != io.EOF {
					w.t.Errorf("behind %d bytes: %v", size, err)
				}
			}
		}
		s, client := take(w, 1<<20, false)
		client.Close()
		if err := s.ended(); err != ErrClientGone {
			w.t.Errorf("of a client that left: %v", err)
		}
		await(w.t, "no stream is left", func() bool { return w.streams.Load() == 0 })
	})
	overBoth(t, Options{WriteTimeout: 500 * time.Millisecond}, func(w *world) {
		s, _ := take(w, 1<<20, false)
		if err := s.ended(); err != ErrStalled {
			w.t.Errorf("of a client that reads nothing: %v", err)
		}
		await(w.t, "no stream is left", func() bool { return w.streams.Load() == 0 })
	})
}

// TestTurns: a long stream to a fast client lets other streams have their turn, and then
// continues by itself.
func TestTurns(t *testing.T) {
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		s, client := w.stream(0)
		var pieces [][]byte
		const size, count = 50_000, 100
		for i := range count {
			pieces = append(pieces, numbered(0, i*size, size))
		}
		s.send(io.EOF, pieces...)
		demand(w.t, "the stream", client, 0, count*size)
		if err := s.ended(); err != io.EOF {
			w.t.Error(err)
		}
		if most := count*size/turnBytes + 1; s.yields < 10 || s.yields > most {
			w.t.Errorf("%d turns for %d bytes", s.yields, count*size)
		}
	})
}

// slowly is a client that pauses now and then.
type slowly struct{ io.Reader }

func (r slowly) Read(p []byte) (int, error) {
	if rand.IntN(50) == 0 {
		time.Sleep(5 * time.Millisecond) // its socket is full by then
	}
	return r.Reader.Read(p[:min(len(p), 1+rand.IntN(16<<10))])
}

// fill opens streams and sends each so many bytes that its socket is full.
func (w *world) fill(streams, size int) (all []*script, clients []*net.TCPConn) {
	w.t.Helper()
	for n := range streams {
		s, client := w.stream(64 << 10)
		all, clients = append(all, s), append(clients, client)
		s.send(nil, numbered(n, 0, size))
	}
	for _, s := range all {
		await(w.t, "a full socket", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.nexts > 0 && len(s.pieces) == 0 })
	}
	return all, clients
}

// TestFullSockets: full sockets wait for room without using the processor, which other
// streams need. When the clients read, the streams continue.
func TestFullSockets(t *testing.T) {
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		const streams, size = 30, 512 << 10
		all, clients := w.fill(streams, size)
		before, begin := busy(w.t), time.Now()
		time.Sleep(500 * time.Millisecond) // of doing nothing
		if used, share := busy(w.t)-before, time.Since(begin)/5; used > share {
			w.t.Errorf("%v of processor time for doing nothing, want less than %v", used, share)
		}
		var work sync.WaitGroup
		for n, s := range all {
			s.send(io.EOF)
			work.Go(func() { demand(w.t, fmt.Sprint("stream ", n), clients[n], n, size) })
		}
		work.Wait()
	})
}

// busy returns the processor time that this process has used.
func busy(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestStalled: the engine closes the socket of a client that reads nothing within the
// timeout, neither sooner nor much later. It keeps a client that reads slowly, even if
// the poller reports no room for longer than the timeout. If the machine holds the slow
// client up for a third of the timeout, it is tried again with a longer one.
func TestStalled(t *testing.T) {
	t.Parallel()
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%t", plain), func(t *testing.T) {
			t.Parallel()
			timeout := 750 * time.Millisecond
			for !stall(newWorld(t, Options{WriteTimeout: timeout, Plain: plain}), timeout) {
				if timeout *= 2; timeout > time.Minute {
					t.Fatal("however long the timeout, this machine is too slow")
				}
			}
		})
	}
}

// stall reports false if the slow client was held up.
func stall(w *world, timeout time.Duration) bool {
	ours, client := w.dial(8 << 10)
	if err := ours.SetWriteBuffer(512 << 10); err != nil {
		w.t.Fatal(err)
	}
	little := newScript(w.t)
	w.take(ours, little)
	little.send(nil, numbered(0, 0, 2<<20))
	stop := make(chan struct{})
	var work sync.WaitGroup
	reads, longest := 0, time.Duration(0)
	var failed error
	work.Go(func() { // reads 40 KB a second, of a megabyte that waits
		b := make([]byte, 2<<10)
		for last := time.Now(); failed == nil; reads++ {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
			_, failed = io.ReadFull(client, b)
			longest = max(longest, time.Since(last))
			last = time.Now()
		}
	})
	begin := time.Now()
	stalled, _ := w.stream(64 << 10)
	stalled.send(nil, numbered(1, 0, 512<<10))
	err, took := stalled.ended(), time.Since(begin)
	var slow error
	select {
	case slow = <-little.closed:
	case <-time.After(4 * timeout):
	}
	close(stop)
	work.Wait()
	if longest > timeout/3 {
		return false
	}
	if err != ErrStalled || took < timeout || took > 4*timeout {
		w.t.Errorf("the stalled client: %v after %v", err, took)
	}
	if slow != nil || failed != nil || reads < 20 {
		w.t.Errorf("the slow client: %v, %v after %d reads", slow, failed, reads)
	}
	return true
}

// TestOverWhileFull: when Over returns an error, a stream to a client that does not read
// ends, and nothing more is written.
func TestOverWhileFull(t *testing.T) {
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		all, _ := w.fill(10, 512<<10)
		why := errors.New("because")
		for _, s := range all {
			s.mu.Lock()
			s.over = why
			s.mu.Unlock()
			s.Wake()
		}
		for _, s := range all {
			if err := s.ended(); err != why {
				w.t.Errorf("ended with %v", err)
			}
		}
	})
}

// TestPanic: a stream that panics breaks off, and the others continue.
func TestPanic(t *testing.T) {
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		ours, client := w.dial(0)
		other, otherClient := w.dial(0)
		broken, sound := newScript(w.t), newScript(w.t)
		w.take(ours, broken)
		w.take(other, sound)
		broken.mu.Lock()
		broken.hook = func() { panic("a bad event") }
		broken.mu.Unlock()
		broken.send(nil, []byte("x"))
		err := broken.ended()
		if _, panicked := errors.AsType[*PanicError](err); !panicked || !strings.Contains(err.Error(), "a bad event") {
			w.t.Errorf("ended with %v", err)
		}
		if got, err := io.ReadAll(client); len(got) > 0 || err != nil {
			w.t.Errorf("read %q, %v", got, err)
		}
		sound.send(nil, []byte("hello"))
		got := make([]byte, 5)
		if _, err := io.ReadFull(otherClient, got); err != nil || string(got) != "hello" {
			w.t.Errorf("the other read %q, %v", got, err)
		}
		client.Close()
		otherClient.Close()
		await(w.t, "no stream is left", func() bool { return w.streams.Load() == 0 })
	})
}

// TestClientGone: the engine notices at once when a client leaves, in any way and in any
// state of the stream.
func TestClientGone(t *testing.T) {
	ways := map[string]func(*net.TCPConn) error{
		"close":      (*net.TCPConn).Close,
		"half-close": (*net.TCPConn).CloseWrite,
		"reset": func(c *net.TCPConn) error {
			return errors.Join(c.SetLinger(0), c.Close())
		},
	}
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		before := descriptors(w.t)
		for name, leave := range ways {
			for _, state := range []string{"before", "idle", "full"} {
				ours, client := w.dial(64 << 10)
				s := newScript(w.t)
				if state == "before" {
					if err := leave(client); err != nil {
						w.t.Fatal(err)
					}
				}
				w.take(ours, s)
				switch state {
				case "before":
					s.send(nil, []byte("hello")) // the write may fail
				case "full":
					s.send(nil, numbered(0, 0, 512<<10))
					await(w.t, "a full socket", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.pieces) == 0 })
				}
				if state != "before" {
					if err := leave(client); err != nil {
						w.t.Fatal(err)
					}
				}
				err := s.ended()
				if err != ErrClientGone {
					w.t.Errorf("%s, %s: %v", name, state, err)
				}
				client.Close()
			}
		}
		await(w.t, "no descriptor is left open", func() bool { return descriptors(w.t) <= before })
		await(w.t, "no stream is left", func() bool { return w.streams.Load() == 0 })
	})
}

// TestCloseInEveryState: Close ends every socket in any state, calls Closed of each
// stream once, and leaves no descriptor open.
func TestCloseInEveryState(t *testing.T) {
	before := descriptors(t)
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		var all []*script
		var clients []*net.TCPConn
		for i := range 40 {
			s, client := w.stream(64 << 10)
			all, clients = append(all, s), append(clients, client)
			switch i % 4 {
			case 1:
				s.send(nil, numbered(0, 0, 512<<10)) // full, or about to be
			case 2:
				s.send(nil, []byte("x")) // written, or staged
			case 3:
				client.Close()
			}
		}
		late, client := w.dial(0)
		clients = append(clients, client)
		closed := make(chan struct{})
		go func() { w.close(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(time.Minute):
			w.t.Fatal("the engine does not close")
		}
		for i, s := range all {
			err := s.ended()
			if i%4 == 3 && err == ErrClientGone {
				err = ErrStopped
			}
			if err != ErrStopped && err != nil {
				w.t.Errorf("socket %d ended with %v", i, err)
			}
		}
		socket := w.engine.NewSocket()
		if err := socket.Take(late, nil, newScript(w.t)); !errors.Is(err, ErrStopped) {
			w.t.Errorf("take: %v, want ErrStopped", err)
		}
		for _, c := range clients {
			c.Close()
		}
		await(w.t, "no descriptor is left open", func() bool { return descriptors(w.t) <= before+1 })
	})
}
