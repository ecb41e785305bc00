package main

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// TestTortureProxy: what the links of the torture are said to do, they do.
func TestTortureProxy(t *testing.T) {
	var heard atomic.Int64
	proxy := newTortureProxy(t, "127.0.0.1:0", echo(t, &heard))
	p := &proxied{t: t, proxy: proxy}

	p.dial()
	p.says("hello", nil)

	proxy.delay.Store(int64(100 * time.Millisecond))
	proxy.mood.Store(proxyDelays)
	began := time.Now()
	if p.says("slow", nil); time.Since(began) < 200*time.Millisecond {
		t.Errorf("there and back took %v", time.Since(began))
	}

	proxy.mood.Store(proxySwallows)
	before := heard.Load()
	if p.says("there", os.ErrDeadlineExceeded); heard.Load() != before+1 {
		t.Error("a command did not go through")
	}
	proxy.calm()
	p.says("again", syscall.ECONNRESET) // it has missed something

	p.dial()
	proxy.mood.Store(proxyHangs)
	before = heard.Load()
	if p.says("nowhere", os.ErrDeadlineExceeded); heard.Load() != before {
		t.Error("a command went through")
	}
	proxy.calm()

	p.dial()
	p.says("well", nil)
	proxy.reset(func(*proxyPair) bool { return true })
	p.says("gone", syscall.ECONNRESET)

	proxy.mood.Store(proxyRefuses)
	if conn, err := net.Dial("tcp", proxy.addr()); err == nil {
		p.conn = conn
		p.says("no", syscall.ECONNRESET)
		conn.Close()
	} else if !errors.Is(err, syscall.ECONNRESET) { // the reset may be there before the connection is
		t.Error(err)
	}
	proxy.calm()

	p.dial()
	p.says("well", nil)
	var elsewhere atomic.Int64
	proxy.point(echo(t, &elsewhere))
	p.says("old", syscall.ECONNRESET)
	p.dial()
	if p.says("new", nil); elsewhere.Load() != 1 {
		t.Error("it does not lead elsewhere")
	}
}

// echo is a server that repeats lines, and counts them.
func echo(t *testing.T, heard *atomic.Int64) (address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					heard.Add(1)
					_, _ = io.WriteString(conn, lines.Text()+"\n") // the test sees what does not come
				}
			}()
		}
	}()
	return listener.Addr().String()
}

// proxied is a connection through the proxy.
type proxied struct {
	t     *testing.T
	proxy *tortureProxy
	conn  net.Conn
}

func (p *proxied) dial() {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.proxy.addr())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	p.conn = conn
}

// says sends a line and demands that it comes back, or fails in this way.
func (p *proxied) says(line string, want error) {
	p.t.Helper()
	_ = p.conn.SetDeadline(time.Now().Add(500 * time.Millisecond))
	answer := ""
	_, err := io.WriteString(p.conn, line+"\n")
	if err == nil {
		answer, err = bufio.NewReader(p.conn).ReadString('\n')
	}
	if want == syscall.ECONNRESET && errors.Is(err, syscall.EPIPE) {
		return // the reset was there before the line
	}
	if !errors.Is(err, want) || err == nil && answer != line+"\n" {
		p.t.Errorf("%s: got %q, %v, want %v", line, answer, err, want)
	}
}
