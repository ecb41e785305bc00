//go:build !386 && !s390x

package engine

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestLanes: there are as many lanes as the runtime has processors for them, which in
// a container is fewer than the machine has.
func TestLanes(t *testing.T) {
	machine := runtime.GOMAXPROCS(3)
	defer runtime.GOMAXPROCS(machine)
	if lanes := len(newWorld(t, Options{}).engine.workers); lanes != 3 {
		t.Errorf("%d lanes for 3 processors", lanes)
	}
}

// TestPartialWrites: a socket takes what it has room for, again and again. A rest
// that is forgotten, repeated or overtaken is a stream that lies.
func TestPartialWrites(t *testing.T) {
	overBoth(t, Options{WriteTimeout: 10 * time.Second}, func(w *world) {
		const streams, pieces = 20, 60
		var work sync.WaitGroup
		for n := range streams {
			ours, client := w.dial(4096)
			s := newScript(w.t)
			s.repeats = n%2 == 0 // where the others have the socket keep the rest
			w.take(ours, s)
			size := 0
			for i := range pieces {
				piece := numbered(n, size, 1+rand.IntN([]int{10, 1000, 40_000}[i%3]))
				size += len(piece)
				s.say(nil, piece)
			}
			s.say(io.EOF)
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

// TestHead: what is in front of a stream comes first and whole, also where the
// socket has no room for it, and who does not read it is like any other client that
// leaves, or that does not read.
func TestHead(t *testing.T) {
	overBoth(t, Options{WriteTimeout: 500 * time.Millisecond}, func(w *world) {
		take := func(size int, quiet bool) (*script, *net.TCPConn) {
			ours, client := w.dial(64 << 10)
			s := newScript(w.t)
			s.head = numbered(0, 0, size)
			piece := numbered(0, size, 1000)
			if quiet {
				w.take(ours, s)
				await(w.t, "the head has been tried", func() bool { return s.asked() > 0 })
				s.say(io.EOF, piece)
			} else {
				s.pieces, s.end = [][]byte{piece}, io.EOF
				w.take(ours, s)
			}
			return s, client
		}
		for _, size := range []int{0, 100, 1 << 20} {
			for _, quiet := range []bool{false, true} {
				s, client := take(size, quiet)
				demand(w.t, fmt.Sprint("behind ", size, " bytes"), client, 0, size+1000)
				if err := s.ended(); err != io.EOF {
					w.t.Errorf("behind %d bytes: %v", size, err)
				}
			}
		}
		s, client := take(1<<20, false)
		client.Close()
		if err := s.ended(); err != ErrClientGone {
			w.t.Errorf("of a client that left: %v", err)
		}
		s, _ = take(1<<20, false)
		if err := s.ended(); err != ErrStalled {
			w.t.Errorf("of a client that reads nothing: %v", err)
		}
		await(w.t, "no stream is left", func() bool { return w.streams.Load() == 0 })
	})
}

// TestTurns: a stream that has much to say, to a client that takes it all, lets others
// have their turn in between, and comes back to the rest by itself.
func TestTurns(t *testing.T) {
	overBoth(t, Options{WriteTimeout: 10 * time.Second}, func(w *world) {
		s, client := w.stream(0)
		var pieces [][]byte
		const size, count = 50_000, 100
		for i := range count {
			pieces = append(pieces, numbered(0, i*size, size))
		}
		s.say(io.EOF, pieces...)
		demand(w.t, "the stream", client, 0, count*size)
		if err := s.ended(); err != io.EOF {
			w.t.Error(err)
		}
		if most := count*size/turnBytes + 1; s.yields < 10 || s.yields > most {
			w.t.Errorf("%d turns for %d bytes", s.yields, count*size)
		}
	})
}

// slowly is a client that now and then takes its time.
type slowly struct{ io.Reader }

func (r slowly) Read(p []byte) (int, error) {
	if rand.IntN(50) == 0 {
		time.Sleep(5 * time.Millisecond) // its socket is full by then
	}
	return r.Reader.Read(p[:min(len(p), 1+rand.IntN(16<<10))])
}

// fill has streams say so much that their sockets are full.
func (w *world) fill(streams, size int) (all []*script, clients []*net.TCPConn) {
	w.t.Helper()
	for n := range streams {
		s, client := w.stream(64 << 10)
		all, clients = append(all, s), append(clients, client)
		s.say(nil, numbered(n, 0, size))
	}
	for _, s := range all {
		await(w.t, "a full socket", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.nexts > 0 && len(s.pieces) == 0 })
	}
	return all, clients
}

// TestFullSockets: sockets that are full wait for room, and nothing turns round and
// round until there is some: stalled clients must not cost the others their time.
// When the clients read, all goes on.
func TestFullSockets(t *testing.T) {
	overBoth(t, Options{WriteTimeout: 10 * time.Second}, func(w *world) {
		const streams, size = 30, 512 << 10
		all, clients := w.fill(streams, size)
		before, begin := busy(w.t), time.Now()
		time.Sleep(500 * time.Millisecond) // of doing nothing
		if used, share := busy(w.t)-before, time.Since(begin)/5; used > share {
			w.t.Errorf("%v of processor time for doing nothing, want less than %v", used, share)
		}
		var work sync.WaitGroup
		for n, s := range all {
			s.say(io.EOF)
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

// TestStalled: who reads nothing at all within the timeout is given up, neither
// sooner nor much later, and who reads little is not: the room that it makes may be
// too little for the poller to speak of, for longer than the timeout.
func TestStalled(t *testing.T) {
	const timeout = 750 * time.Millisecond
	overBoth(t, Options{WriteTimeout: timeout}, func(w *world) {
		var work sync.WaitGroup
		defer work.Wait()
		ours, client := w.dial(8 << 10)
		if err := ours.SetWriteBuffer(512 << 10); err != nil {
			w.t.Fatal(err)
		}
		little := newScript(w.t)
		w.take(ours, little)
		little.say(nil, numbered(0, 0, 2<<20))
		stop := make(chan struct{})
		work.Go(func() { // reads 40 KB a second, of a megabyte that waits
			b := make([]byte, 2<<10)
			for n := 0; ; n++ {
				select {
				case <-stop:
					if n < 20 {
						w.t.Errorf("it has read %d times", n)
					}
					return
				case <-time.After(50 * time.Millisecond):
				}
				if _, err := io.ReadFull(client, b); err != nil {
					w.t.Errorf("who reads little: %v", err)
					return
				}
			}
		})
		begin := time.Now()
		stalled, _ := w.stream(64 << 10)
		stalled.say(nil, numbered(1, 0, 512<<10))
		err, took := stalled.ended(), time.Since(begin)
		if err != ErrStalled || took < timeout || took > 4*timeout {
			w.t.Errorf("who reads nothing: %v after %v", err, took)
		}
		select {
		case err := <-little.closed:
			w.t.Errorf("who reads little: %v", err)
		case <-time.After(4 * timeout):
		}
		close(stop)
	})
}

// TestOverWhileFull: a stream has to end although its client does not read, when
// somebody says so, and before anything more is written.
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

// TestPanic: a stream that panics ends, by a break, and no other does.
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
		broken.say(nil, []byte("x"))
		err := broken.ended()
		if _, panicked := errors.AsType[*PanicError](err); !panicked || !strings.Contains(err.Error(), "a bad event") {
			w.t.Errorf("ended with %v", err)
		}
		if got, err := io.ReadAll(client); len(got) > 0 || err != nil {
			w.t.Errorf("read %q, %v", got, err)
		}
		sound.say(nil, []byte("hello"))
		got := make([]byte, 5)
		if _, err := io.ReadFull(otherClient, got); err != nil || string(got) != "hello" {
			w.t.Errorf("the other read %q, %v", got, err)
		}
		client.Close()
		otherClient.Close()
		await(w.t, "no stream is left", func() bool { return w.streams.Load() == 0 })
	})
}

// TestLeft: a client that leaves is noticed at once, in whatever way it leaves and
// whatever is going on.
func TestLeft(t *testing.T) {
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
					s.say(nil, []byte("hello")) // it may be the write that fails
				case "full":
					s.say(nil, numbered(0, 0, 512<<10))
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
		await(w.t, "no descriptor is left", func() bool { return descriptors(w.t) <= before })
		await(w.t, "no stream is left", func() bool { return w.streams.Load() == 0 })
	})
}

// TestCloseInEveryState: Close ends every socket, whatever it is doing, tells each
// stream once, and leaves nothing behind.
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
				s.say(nil, numbered(0, 0, 512<<10)) // full, or about to be
			case 2:
				s.say(nil, []byte("x")) // written, or staged
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
		case <-time.After(10 * time.Second):
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
		await(w.t, "no descriptor is left", func() bool { return descriptors(w.t) <= before+1 })
	})
}

// TestBatchDoesNotStarve: what is staged leaves soon, although the lane always has
// somebody else to call: a storm over one feed must not hold up another.
func TestBatchDoesNotStarve(t *testing.T) {
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		lanes := len(w.engine.workers)
		var calm []*script
		var clients []*net.TCPConn
		for range lanes { // one is on each of them
			s, client := w.stream(0)
			calm, clients = append(calm, s), append(clients, client)
		}
		var conns []net.Conn
		for range lanes * 100 { // more than a step calls
			ours, _ := w.dial(0)
			conns = append(conns, ours)
		}
		for _, conn := range conns {
			w.takeRestless(conn, nil)
		}
		for i, s := range calm {
			s.say(nil, []byte("hello"))
			_ = clients[i].SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.ReadFull(clients[i], make([]byte, 5)); err != nil {
				w.t.Fatal(err)
			}
		}
	})
}

// TestEventsBeforeKeepAlives: while a lane has events to write, it looks after few
// of those that are due at a time: thousands that came together have their
// keep-alives together.
func TestEventsBeforeKeepAlives(t *testing.T) {
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		byLane := make(map[*worker]*looks)
		for _, l := range w.engine.workers {
			byLane[l] = &looks{}
		}
		var idle []*due
		for range len(byLane) * 100 {
			socket := w.engine.NewSocket()
			s := &due{script{t: w.t, closed: make(chan error, 1)}, byLane[socket.worker]}
			conn, _ := w.dial(0)
			w.carry(socket, conn, &s.script, s)
			idle = append(idle, s)
		}
		for range len(byLane) * 100 { // more than a step calls
			conn, _ := w.dial(0)
			w.takeRestless(conn, byLane)
		}
		await(w.t, "all have been asked", func() bool {
			return !slices.ContainsFunc(idle, func(s *due) bool { return s.asked() == 0 })
		})
		for _, l := range byLane {
			l.counted.Store(true)
		}
		for _, l := range byLane {
			await(w.t, "all are looked after", func() bool { return l.all.Load() >= 100 })
			if most := l.most.Load(); most > busyDueAtOnce {
				w.t.Errorf("%d were looked after at a time, want %d at most", most, busyDueAtOnce)
			}
		}
	})
}

// looks counts how often a lane looks after those that are due, without an event
// in between.
type looks struct {
	counted        atomic.Bool
	now, most, all atomic.Int64
}

// due is a stream that is always due, and says nothing.
type due struct {
	script
	looks *looks
}

func (s *due) Due() time.Duration { return 0 }

func (s *due) Next(now time.Duration) ([]byte, error) {
	if s.looks.counted.Load() {
		s.looks.now.Add(1)
	}
	return s.script.Next(now)
}

// takeRestless takes a stream that says nothing, and wants to be asked again at
// once. It tells the looks of its lane.
func (w *world) takeRestless(conn net.Conn, byLane map[*worker]*looks) {
	socket := w.engine.NewSocket()
	s := &restless{script{t: w.t, closed: make(chan error, 1)}, byLane[socket.worker]}
	w.carry(socket, conn, &s.script, s)
}

type restless struct {
	script
	looks *looks // may be nil
}

func (s *restless) Next(time.Duration) ([]byte, error) {
	if l := s.looks; l != nil {
		n := l.now.Swap(0)
		l.most.Store(max(l.most.Load(), n))
		l.all.Add(n)
	}
	s.Wake()
	return nil, nil
}
