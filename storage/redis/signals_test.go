package redis_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/redis"
	"github.com/rejoin/rejoin/storage/testserver"
	"go.uber.org/goleak"
)

// ear listens to signals for as long as the test runs.
type ear struct {
	t    *testing.T
	bus  *redis.Bus
	log  *lines
	stop func()

	mu  sync.Mutex
	got int
}

func hear(t *testing.T, url string, o redis.Options) *ear {
	t.Helper()
	e := &ear{t: t, log: &lines{}}
	o.Logger = slog.New(slog.NewTextHandler(e.log, nil))
	e.bus = open(t, url, o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.bus.Signals(ctx, e.receive) }()
	e.stop = sync.OnceFunc(func() {
		began := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("signals: got %v, want nil", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("signals ended %v after its context", took)
		}
		if err := e.bus.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	t.Cleanup(e.stop)
	return e
}

func (e *ear) receive([]byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.got++
}

func (e *ear) count() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.got
}

// hears waits until a signal from the bus arrives.
func (e *ear) hears(from *redis.Bus, within time.Duration) {
	e.t.Helper()
	before := e.count()
	eventually(e.t, within, "a signal arrives", func() bool {
		_ = sendSignal(from)              // it fails for as long as the fault lasts
		time.Sleep(10 * time.Millisecond) // for the signal; a lost one is sent again
		return e.count() > before
	})
}

func sendSignal(b *redis.Bus) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return b.Signal(ctx, []byte("signal"))
}

// Whatever ends a connection, signals get through again soon after.
func TestSignalsReconnect(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	o := options()
	e := hear(t, server.URL(), o)
	sender := open(t, server.URL(), o)
	defer sender.Close()
	e.hears(sender, 5*time.Second)
	c := direct(t, server.URL())
	t.Run("connection killed", func(t *testing.T) {
		for range 5 {
			if err := c.Do(t.Context(), "client", "kill", "type", "pubsub").Err(); err != nil {
				t.Fatal(err)
			}
			e.hears(sender, time.Second)
		}
	})
	t.Run("server restarted", func(t *testing.T) {
		for range 3 {
			server.Kill()
			if err := sendSignal(sender); err == nil {
				t.Error("signal without a server: no error")
			}
			server.Start()
			e.hears(sender, 1500*time.Millisecond)
		}
	})
	t.Run("server frozen", func(t *testing.T) {
		server.Pause()
		began := time.Now()
		if err := sendSignal(sender); err == nil || time.Since(began) > 900*time.Millisecond {
			t.Errorf("signal to a frozen server took %v: %v", time.Since(began), err)
		}
		time.Sleep(4 * time.Second) // the fault lasts this long
		server.Resume()
		e.hears(sender, 1500*time.Millisecond)
	})
	if said := e.log.String(); said != "" {
		t.Errorf("the outages are for the tail to log, signals said:\n%s", said)
	}
}

// The bus leaves a frozen server, even though no connection ends.
func TestSignalsFrozen(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	p := testserver.StartProxy(t, server.Addr())
	o := options()
	e := hear(t, p.URL(server.URL()), o)
	sender := open(t, server.URL(), o)
	defer sender.Close()
	e.hears(sender, 5*time.Second)
	conns := p.Conns()
	if len(conns) == 0 {
		t.Fatal("no connection to freeze")
	}
	for _, c := range conns { // those that come later work
		c.Set(testserver.Fault{ToClient: testserver.Flow{Lose: true}})
	}
	began := time.Now()
	e.hears(sender, 4*time.Second)
	t.Logf("heard again %v after the connection froze", time.Since(began).Round(time.Millisecond))
}

// Signals has to end while it waits for a server that does not answer, and
// leaves nothing behind.
func TestSignalsEndWhileFrozen(t *testing.T) {
	server := testserver.StartRedis(t, "--requirepass", "s3cret")
	for _, connected := range []bool{true, false} {
		before := goleak.IgnoreCurrent()
		o := options()
		if connected {
			e := hear(t, server.URL(), o)
			e.hears(e.bus, 5*time.Second)
			server.Pause()
			e.stop()
		} else {
			b := open(t, server.URL(), o)
			server.Pause()
			// A deadline would be easier: the connection can heed it by itself.
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			began := time.Now()
			if err := b.Signals(ctx, func([]byte) {}); err != nil {
				t.Errorf("signals: %v", err)
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("while it connects, signals ended %v after its context", took)
			}
			cancel()
			b.Close()
		}
		server.Resume()
		goroutinesEnd(t, before)
	}
}

// After a failover a node may still listen to a server that works but that no other
// node uses. The node notices that its own signals do not come back.
func TestSignalsDeaf(t *testing.T) {
	t.Parallel()
	old, current := testserver.StartRedis(t), testserver.StartRedis(t)
	p := testserver.StartProxy(t, old.Addr())
	o := options()
	e := hear(t, p.URL(old.URL()), o)
	e.hears(e.bus, 5*time.Second)
	p.Point(current.Addr())
	// From now on, the node's own signals go to the other server.
	if err := direct(t, old.URL()).Do(t.Context(), "client", "kill", "type", "normal").Err(); err != nil {
		t.Fatal(err)
	}
	sender := open(t, current.URL(), o)
	defer sender.Close()
	heard := e.count()
	eventually(t, 5*time.Second, "the node listens to the other server", func() bool {
		_ = sendSignal(e.bus)
		_ = sendSignal(sender)
		return e.count() > heard
	})
}

// A user that may not use the channel: events flow, the bus is up, and the log has
// one line about it.
func TestSignalsRefused(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	allow(t, server, "resetchannels")
	o := options()
	url := "redis://rejoin:x@" + server.Addr()
	teller, n := pair(t, url, o, "chat")
	n.up(5 * time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- n.bus.Signals(ctx, func([]byte) {}) }()
	defer func() { cancel(); <-ended }()
	if err := sendSignal(teller); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("signal without permission: got %v, want NOPERM", err)
	}
	flows(t, teller, n, "chat")
	n.up(time.Second)
	eventually(t, 10*time.Second, "the log says so", func() bool { return n.log.count("signals do not get through") == 1 })
	n.up(time.Second)
	flows(t, teller, n, "chat")
	allow(t, server)
	eventually(t, 5*time.Second, "the log says that it is over", func() bool { return n.log.count("signals get through again") == 1 })
	if got := n.log.count("\n"); got != 2 {
		t.Errorf("the log has %d lines:\n%s", got, n.log)
	}
}

// Signals that fail do not keep events from being told.
func TestSignalsFailAlone(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	teller, n := pair(t, server.URL(), options(), "chat")
	flows(t, teller, n, "chat")
	for range 3 {
		server.Pause()
		_ = sendSignal(teller) // it waits in vain
		server.Resume()
		if err := tell(teller, n.world.commit("chat", 1)); err != nil {
			t.Errorf("tell after a signal that failed: %v", err)
		}
	}
}
