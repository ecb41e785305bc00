package testserver

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestProxyForwards(t *testing.T) {
	t.Parallel()
	e := startEcho(t)
	p := StartProxy(t, e.addr())
	a, b := connected(t, p), connected(t, p)
	a.says("one", nil)
	b.says(strings.Repeat("long ", 100_000), nil)
	if got, want := p.URL("redis://user:secret@"+e.addr()+"/0"), "redis://user:secret@"+p.Addr()+"/0"; got != want {
		t.Errorf("the URL is %s, want %s", got, want)
	}
	if got := len(p.Conns()); got != 2 {
		t.Errorf("%d connections are open, want 2", got)
	}
	a.conn.Close()
	eventually(t, "the server sees the end", func() bool { return slices.Equal(e.ended(), []error{io.EOF}) })
	eventually(t, "one connection is left", func() bool { return len(p.Conns()) == 1 })
	if p.Lost() != 0 || p.Cuts() != 0 {
		t.Errorf("%d reads were lost, and %d connections cut", p.Lost(), p.Cuts())
	}
}

// Bytes that a server sends before it ends a connection arrive.
func TestProxyPassesEnds(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]error{"an orderly end": io.ErrUnexpectedEOF, "a reset": syscall.ECONNRESET} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			c := dial(t, StartProxy(t, listener.Addr().String()))
			server, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(server, "bye") // the client sees whether it comes
			c.gets("bye", nil)
			if want == syscall.ECONNRESET {
				reset(server.(*net.TCPConn))
				c.gets("more", want)
				return
			}
			_, _ = io.WriteString(server, "bye")
			server.Close()
			c.gets("bye, and more", want)
		})
	}
}

func TestProxyLosesReplies(t *testing.T) {
	t.Parallel()
	for _, heals := range []bool{true, false} {
		e := startEcho(t)
		p := StartProxy(t, e.addr())
		c, silent := connected(t, p), connected(t, p)
		p.Set(Fault{ToClient: Flow{Lose: true}})
		c.says("there", os.ErrDeadlineExceeded)
		if !e.hears("there") || p.Lost() != 1 {
			t.Errorf("the server has heard it: %t; %d reads were lost, want 1", e.hears("there"), p.Lost())
		}
		if heals {
			p.Heal()
			c.says("again", syscall.ECONNRESET)
		} else {
			p.Set(Fault{})
			c.says("again", nil) // though it has missed something
		}
		silent.says("well", nil) // it has lost nothing
		connected(t, p)
	}
}

func TestProxyBlackHole(t *testing.T) {
	t.Parallel()
	e := startEcho(t)
	p := StartProxy(t, e.addr())
	c, leaves, silent := connected(t, p), connected(t, p), connected(t, p)
	p.Set(Both(Flow{Lose: true}))
	c.says("nowhere", os.ErrDeadlineExceeded)
	leaves.conn.Close()
	dial(t, p).says("nor here", os.ErrDeadlineExceeded)
	if e.hears("nowhere") || e.hears("nor here") || len(e.ended()) > 0 {
		t.Errorf("something got through: %q, %v", e.heard, e.ended())
	}
	p.Heal()
	c.says("gone", syscall.ECONNRESET)
	silent.says("well", nil)
	eventually(t, "the server sees the end", func() bool { return slices.Contains(e.ended(), io.EOF) })
}

func TestProxyHolds(t *testing.T) {
	t.Parallel()
	e := startEcho(t)
	p := StartProxy(t, e.addr())
	c, leaves := connected(t, p), connected(t, p)
	p.Set(Fault{ToServer: Flow{Hold: true}})
	c.says("one", os.ErrDeadlineExceeded)
	c.sends("two\n")
	leaves.sends("three\n")
	leaves.conn.Close()
	time.Sleep(50 * time.Millisecond) // for what should not come
	if e.hears("one") || len(e.ended()) > 0 {
		t.Errorf("something got through: %q, %v", e.heard, e.ended())
	}
	p.Heal()
	c.gets("one\ntwo\n", nil)
	eventually(t, "the server hears what came before the end", func() bool { return e.hears("three") && len(e.ended()) == 1 })
	if p.Lost() != 0 {
		t.Errorf("%d reads were lost", p.Lost())
	}
}

func TestProxyDelays(t *testing.T) {
	t.Parallel()
	p := StartProxy(t, startEcho(t).addr())
	c := connected(t, p)
	const delay = 100 * time.Millisecond
	for fault, want := range map[Fault]time.Duration{
		Both(Flow{Delay: delay}): 2 * delay, {ToClient: Flow{Delay: delay}}: delay, {ToServer: Flow{Delay: delay}}: delay,
	} {
		p.Set(fault)
		began := time.Now()
		if c.says("slow", nil); time.Since(began) < want {
			t.Errorf("there and back took %v, want %v", time.Since(began), want)
		}
	}
	p.Heal()
	c.says("quick", nil)
}

func TestProxyLimitsTheRate(t *testing.T) {
	t.Parallel()
	p := StartProxy(t, startEcho(t).addr())
	c := connected(t, p)
	p.Set(Fault{ToClient: Flow{Rate: 10_000}})
	began := time.Now()
	c.says(strings.Repeat("x", 4999), nil)
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("5000 bytes took %v at 10000 a second", took)
	}
}

func TestProxyRefuses(t *testing.T) {
	t.Parallel()
	e := startEcho(t)
	p := StartProxy(t, e.addr())
	old := connected(t, p)
	refused := func() {
		t.Helper()
		conn, err := net.Dial("tcp", p.Addr())
		if err == nil { // the reset may be there before the connection is
			(&client{t: t, conn: conn.(*net.TCPConn), lines: bufio.NewReader(conn)}).says("no", syscall.ECONNRESET)
			conn.Close()
		} else if !errors.Is(err, syscall.ECONNRESET) {
			t.Error(err)
		}
	}
	p.Set(Fault{Refuse: true})
	refused()
	old.says("well", nil)
	p.Heal()
	connected(t, p)
	p.Point("127.0.0.1:1") // where there is no server
	refused()
	if e.hears("no") {
		t.Error("the server was reached")
	}
}

func TestProxyPoints(t *testing.T) {
	t.Parallel()
	one, other := startEcho(t), startEcho(t)
	p := StartProxy(t, one.addr())
	c := connected(t, p)
	p.Point(other.addr())
	c.says("old", nil)
	connected(t, p).says("new", nil)
	if !one.hears("old") || one.hears("new") || !other.hears("new") {
		t.Errorf("one heard %q, the other %q", one.heard, other.heard)
	}
	p.Point(one.addr(), other.addr())
	for range 100 {
		connected(t, p).says("any", nil)
	}
	if !one.hears("any") || !other.hears("any") {
		t.Error("one of two targets was never chosen")
	}
}

func TestProxyCuts(t *testing.T) {
	t.Parallel()
	e := startEcho(t)
	p := StartProxy(t, e.addr())
	c := connected(t, p)
	p.Cut(Reset)
	c.says("gone", syscall.ECONNRESET)
	eventually(t, "the server sees a reset", func() bool { return len(e.ended()) == 1 && errors.Is(e.ended()[0], syscall.ECONNRESET) })

	c = connected(t, p)
	p.Cut(Close)
	c.sends("not heard\n") // must not turn the end into a reset
	c.gets("x", io.EOF)
	eventually(t, "the server sees an end", func() bool { return len(e.ended()) == 2 && e.ended()[1] == io.EOF })

	c, stays := connected(t, p), connected(t, p)
	p.Conns()[0].Cut(Vanish)
	c.gets("x", io.EOF)
	time.Sleep(50 * time.Millisecond) // for what should not come
	if got := e.ended(); len(got) != 2 || len(p.Conns()) != 1 {
		t.Errorf("the server sees %v; %d connections are open, want 1", got, len(p.Conns()))
	}
	stays.says("well", nil)
	if e.hears("not heard") || p.Cuts() != 0 {
		t.Errorf("%q got through; %d connections were cut by a fault", e.heard, p.Cuts())
	}
}

func TestProxyCutsAfter(t *testing.T) {
	t.Parallel()
	e := startEcho(t)
	p := StartProxy(t, e.addr())
	c := connected(t, p) // its first bytes do not count
	p.Set(Fault{ToClient: Flow{CutAfter: 10, End: Close}})
	c.says("12345", nil)
	c.sends("67890\n")
	c.gets("6789", nil)
	c.gets("0", io.EOF)

	p.Set(Fault{})
	c = connected(t, p)
	p.Set(Fault{ToServer: Flow{CutAfter: 3, End: Close}})
	c.sends("1\n3\n")
	c.gets("x", io.EOF) // the answer to the first line may have come before
	eventually(t, "the server sees an end", func() bool { return len(e.ended()) == 2 })
	p.Set(Fault{})
	c = connected(t, p)
	p.Set(Fault{ToClient: Flow{CutAfter: 1}})
	c.says("reset", syscall.ECONNRESET)
	if !e.hears("1") || e.hears("3") || p.Cuts() != 3 {
		t.Errorf("the server heard %q; %d cuts, want 3", e.heard, p.Cuts())
	}
}

// Each connection fails in its own way, and a seed repeats these ways.
func TestProxyDraws(t *testing.T) {
	t.Parallel()
	e := startEcho(t)
	const text = "123456789\n"
	run := func(seed uint64) (passed []int) {
		p := StartProxy(t, e.addr())
		p.Draw(seed, func(r *rand.Rand) Fault {
			return Fault{ToClient: Flow{CutAfter: 1 + r.Int64N(int64(len(text))), End: Close}}
		})
		for range 20 {
			c := dial(t, p)
			c.sends(text)
			got, err := io.ReadAll(c.conn)
			if err != nil || !strings.HasPrefix(text, string(got)) {
				t.Errorf("got %q, %v", got, err)
			}
			passed = append(passed, len(got))
			c.conn.Close()
		}
		if p.Cuts() != 20 {
			t.Errorf("%d cuts, want 20", p.Cuts())
		}
		p.Draw(seed, nil)
		connected(t, p)
		return passed
	}
	one, again, other := run(1), run(1), run(2)
	if !slices.Equal(one, again) || slices.Equal(one, other) {
		t.Errorf("seed 1 gave %v and %v, seed 2 %v", one, again, other)
	}
}

func TestProxyFaultOfOneConnection(t *testing.T) {
	t.Parallel()
	p := StartProxy(t, startEcho(t).addr())
	a, b := connected(t, p), connected(t, p)
	for _, c := range p.Conns()[:1] {
		c.Set(Fault{ToClient: Flow{Lose: true}})
	}
	a.says("lost", os.ErrDeadlineExceeded)
	b.says("well", nil)
	connected(t, p)
	p.Heal()
	a.says("gone", syscall.ECONNRESET)
	b.says("well", nil)
}

// A tap sees whole messages in whatever pieces they come, and can lose one or end
// the connection before it.
func TestProxyTap(t *testing.T) {
	t.Parallel()
	e := startEcho(t)
	p := StartProxy(t, e.addr())
	untapped := connected(t, p)
	var mu sync.Mutex
	var seen []string
	p.Tap(func(c *Conn, d Direction, data []byte) int {
		return bytes.IndexByte(data, '\n') + 1
	}, func(c *Conn, d Direction, message []byte) bool {
		if d == ToClient {
			return string(message) != "answer\n"
		}
		mu.Lock()
		defer mu.Unlock()
		if seen = append(seen, string(message)); c.Seen(ToServer) == 0 {
			return true // the first
		}
		if string(message) == "cut\n" {
			p.Set(Fault{Refuse: true})
			c.Cut(Vanish)
		}
		return string(message) != "lose\n"
	})
	c := dial(t, p)
	for _, piece := range []string{"lose\nlo", "se\n", "answer\nkeep\nc"} {
		c.sends(piece)
		time.Sleep(20 * time.Millisecond) // so that the pieces are read one by one
	}
	c.gets("lose\nkeep\n", nil)
	if p.Lost() != 2 {
		t.Errorf("%d messages were lost, want 2", p.Lost())
	}
	c.sends("ut\nnot seen\n")
	c.gets("x", io.EOF)
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"lose\n", "lose\n", "answer\n", "keep\n", "cut\n"}; !slices.Equal(seen, want) {
		t.Errorf("saw %q, want %q", seen, want)
	}
	if e.hears("cut") || !e.hears("answer") || len(e.ended()) > 0 {
		t.Errorf("the server heard %q, and saw the ends %v", e.heard, e.ended())
	}
	untapped.says("cut", nil)
}

// However faults change, what arrives is what was sent, unless something is lost.
func TestProxyUnderChange(t *testing.T) {
	t.Parallel()
	p := StartProxy(t, startEcho(t).addr())
	var work sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		work.Go(func() {
			for {
				if conn, err := net.Dial("tcp", p.Addr()); err != nil {
					t.Error(err)
				} else {
					talk(t, conn)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := range 300 {
		switch i % 6 {
		case 0:
			p.Set(Both(Flow{Hold: true}))
		case 1:
			p.Set(Both(Flow{Delay: time.Millisecond, Rate: 100_000}))
		case 2:
			p.Set(Fault{ToClient: Flow{Lose: true}})
		case 3:
			p.Draw(uint64(i), func(r *rand.Rand) Fault {
				return Fault{ToClient: Flow{CutAfter: 1 + r.Int64N(100), End: End(r.IntN(3))}}
			})
		case 4:
			p.Cut(End(i % 3))
		}
		time.Sleep(time.Millisecond) // for something to happen
		p.Heal()
	}
	close(stop)
	work.Wait()
}

// talk sends lines, and checks those that come back.
func talk(t *testing.T, conn net.Conn) {
	defer conn.Close()
	lines := bufio.NewReader(conn)
	for i := range 50 {
		line := strings.Repeat("x", i) + "\n"
		if _, err := io.WriteString(conn, line); err != nil {
			return
		}
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		got, err := lines.ReadString('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) || err == nil && got != line {
			t.Errorf("got %q, %v; want %q", got, err, line)
		}
		if err != nil {
			return
		}
	}
}
