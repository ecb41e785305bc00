package redis_test

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/redis"
	"github.com/rejoin/rejoin/storage/testserver"
)

// proxy is a network between a bus and its server, that can be broken.
type proxy struct {
	listener net.Listener

	mu     sync.Mutex
	server string
	conns  map[net.Conn]bool
	mute   bool              // replies are lost
	delay  time.Duration     // of replies
	mutes  map[net.Conn]bool // clients that get no replies any more
}

func startProxy(t *testing.T, server string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, server: server, conns: make(map[net.Conn]bool), mutes: make(map[net.Conn]bool)}
	go p.accept()
	t.Cleanup(func() { l.Close(); p.reset() })
	return p
}

func (p *proxy) url() string { return "redis://" + p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.leads())
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		go func() {
			_, _ = io.Copy(server, client) // it ends when either side does
			server.Close()
		}()
		go p.reply(client, server)
	}
}

func (p *proxy) reply(client, server net.Conn) {
	defer client.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		mute, delay := p.mute || p.mutes[client], p.delay
		p.mu.Unlock()
		if mute {
			continue
		}
		time.Sleep(delay) // a slow network is the fault
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) set(mute bool, delay time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute, p.delay = mute, delay
}

// strangle has the connections of now get no replies any more.
func (p *proxy) strangle() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		p.mutes[c] = true
	}
	return len(p.mutes)
}

// lead has new connections go to another server.
func (p *proxy) lead(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = server
}

func (p *proxy) leads() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.server
}

// reset cuts all connections, with a TCP reset.
func (p *proxy) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.(*net.TCPConn).SetLinger(0) // it may be closed already
		c.Close()
	}
	clear(p.conns)
}

// One node is cut off by its network, in every way there is; the other is not.
func TestNetwork(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	p := startProxy(t, server.Addr())
	o := options()
	w := newWorld()
	n := join(t, w, p.url(), o, "chat", "news")
	teller := open(t, server.URL(), o)
	defer teller.Close()
	flows(t, teller, n, "chat")

	t.Run("resets", func(t *testing.T) {
		for range 10 {
			if err := tell(teller, w.commit("news", 1)); err != nil {
				t.Fatal(err)
			}
			p.reset()
			n.arrives(2 * time.Second)
		}
		flows(t, teller, n, "chat")
	})
	t.Run("lost replies", func(t *testing.T) {
		n.up(2 * time.Second)
		before := n.bus.Stats().Reconnects
		p.set(true, 0)
		if err := tell(teller, w.commit("news", 3)); err != nil {
			t.Fatal(err)
		}
		// What this node tells arrives, but it can't know.
		if err := tell(n.bus, w.commit("chat", 1)); err == nil {
			t.Error("tell without an answer: no error")
		}
		eventually(t, 4*time.Second, "the silence is noticed", func() bool { return n.bus.Stats().Reconnects > before })
		p.set(false, 0)
		n.arrives(2 * time.Second)
		flows(t, teller, n, "chat")
	})
	t.Run("delay", func(t *testing.T) {
		p.set(false, 300*time.Millisecond)
		before := n.bus.Stats().Reconnects
		n.flowsSlowly(t, teller, 3)
		if now := n.bus.Stats().Reconnects; now != before {
			t.Errorf("a slow network was taken for a broken one %d times", now-before)
		}
		p.set(false, 0)
		flows(t, teller, n, "chat")
	})
}

// flowsSlowly checks that events arrive by the bus within two seconds.
func (n *node) flowsSlowly(t *testing.T, teller *redis.Bus, times int) {
	t.Helper()
	for range times {
		live, _, _ := n.counts()
		if err := tell(teller, n.world.commit("chat", 1)); err != nil {
			t.Fatal(err)
		}
		n.arrives(2 * time.Second)
		if now, _, _ := n.counts(); now == live {
			t.Error("an event came by way of the store")
		}
	}
}
