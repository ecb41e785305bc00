package e2e

import (
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var soakFor = flag.Duration("soak-for", 5*time.Second, "how long clients come and go in TestSoak")

const (
	soakRate  = 200 // connections a second; a machine with other work takes longer for as many
	soakFeeds = 100
	soakGrows = 24 << 20 // bytes that the process may have more, of what Go has yet to give back
)

// TestSoak: clients come and go all the time, some of them streaming, most without
// a word of farewell. A goroutine, a descriptor or a few kilobytes that each of them
// leaves behind end every process some day. It runs longer with -soak-for 10m.
func TestSoak(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, true), filepath.Join(t.TempDir(), "rejoin.db"), "REJOIN_ADMIN_LISTEN=127.0.0.1:0")
	p.awaitReady()
	admin := p.adminURL()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	cold := soakOf(p, admin)
	soak(t, p, min(*soakFor/3, 30*time.Second)) // until all is as large as it gets
	p.awaitFewer(admin, cold)
	before := soakOf(p, admin)
	connections, bytes := soak(t, p, *soakFor)
	after := p.awaitFewer(admin, cold)
	t.Logf("%d connections, %d bytes read; cold %v; before %v; after %v", connections, bytes, cold, before, after)
	if bytes < connections {
		t.Errorf("%d connections have read %d bytes", connections, bytes)
	}
	// Logs outlive their subscribers by some seconds, and Go gives memory back in
	// its own time.
	began := time.Now()
	for after.rss > before.rss+soakGrows {
		if time.Since(began) > time.Minute {
			t.Fatalf("the process grew by %d KB", (after.rss-before.rss)>>10)
		}
		time.Sleep(time.Second)
		after = soakOf(p, admin)
	}
	t.Logf("%v after %.0f s", after, time.Since(began).Seconds())
}

// holds is what a process holds.
type holds struct{ goroutines, descriptors, subscribers, rss int }

func (h holds) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d subscribers, %d KB", h.goroutines, h.descriptors, h.subscribers, h.rss>>10)
}

func soakOf(p *process, admin string) (h holds) {
	p.t.Helper()
	get := func(path string) string {
		resp, err := soakClient.Get(admin + path)
		if err != nil {
			p.t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			p.t.Fatal(err)
		}
		return string(b)
	}
	_ = get("/debug/pprof/heap?gc=1")
	if _, err := fmt.Sscanf(get("/debug/pprof/goroutine?debug=1"), "goroutine profile: total %d", &h.goroutines); err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(get("/metrics")) {
		if n, found := strings.CutPrefix(line, "rejoin_subscribers "); found {
			fmt.Sscan(n, &h.subscribers) //nolint:errcheck // 0 is what is waited for, and demanded of none
		}
	}
	h.descriptors, h.rss = p.descriptors(), p.rss()
	return h
}

// soakClient leaves nothing behind by itself.
var soakClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// descriptors returns how many the process has.
func (p *process) descriptors() int {
	p.t.Helper()
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	return len(all)
}

// awaitFewer waits until the process holds no more than it did when nobody had come
// yet, but for the goroutines and descriptors that the first subscriber brings: the
// engine's, and connections of the store.
func (p *process) awaitFewer(admin string, cold holds) holds {
	p.t.Helper()
	return p.awaitFewerFor(admin, cold, time.Minute)
}

// awaitFewerFor does the same with another patience.
func (p *process) awaitFewerFor(admin string, cold holds, patience time.Duration) holds {
	p.t.Helper()
	const more = 20
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		h := soakOf(p, admin)
		if h.subscribers == 0 && h.goroutines <= cold.goroutines+more && h.descriptors <= cold.descriptors+more {
			return h
		}
		if time.Now().After(deadline) {
			p.t.Errorf("%v; when nobody had come: %v", h, cold)
			return h
		}
	}
}

// soak has clients come and go for a time, and until half as many have come as that
// time is for.
func soak(t *testing.T, p *process, how time.Duration) (connections, bytes int64) {
	t.Helper()
	var total atomic.Int64
	var work sync.WaitGroup
	stop := make(chan struct{})
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(10 * time.Millisecond): // a hundred a second
			}
			if _, err := publish(http.DefaultClient, p.url, fmt.Sprint("soak", i%soakFeeds), strings.Repeat("x", 1+rand.IntN(2000))); err != nil {
				t.Error(err)
				return
			}
		}
	})
	tick := time.NewTicker(time.Second / soakRate)
	defer tick.Stop()
	enough := int64(how.Seconds() * soakRate / 2)
	for deadline := time.Now().Add(how); (time.Now().Before(deadline) || connections < enough) && !t.Failed(); <-tick.C {
		n := connections
		connections++
		work.Go(func() {
			read, err := soakOne(strings.TrimPrefix(p.url, "http://"), int(n))
			if err != nil {
				t.Error(err)
			}
			total.Add(read)
		})
	}
	work.Wait()
	close(stop)
	publisher.Wait()
	return connections, total.Load()
}

// soakOne is one client, in one of the ways there are.
func soakOne(address string, n int) (read int64, err error) {
	dialed, err := net.Dial("tcp", address)
	if err != nil {
		return 0, err
	}
	conn := dialed.(*net.TCPConn)
	defer conn.Close()
	path := fmt.Sprintf("/v1/feeds/soak%d/events?from=-5", n%soakFeeds)
	if n%7 == 0 {
		path = fmt.Sprintf("/v1/events?feed=soak%d,soak%d", n%soakFeeds, (n+1)%soakFeeds)
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
		return 0, err
	}
	stay := rand.N(100 * time.Millisecond)
	if n%10 == 0 {
		stay = rand.N(2 * time.Second)
	}
	if n%4 > 0 {
		_ = conn.SetReadDeadline(time.Now().Add(stay))
		read, _ = io.Copy(io.Discard, conn)
	}
	switch n % 3 {
	case 0:
		_ = conn.SetLinger(0)
	case 1:
		_ = conn.CloseWrite()
	}
	return read, nil
}
