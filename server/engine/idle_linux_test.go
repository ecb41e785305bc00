//go:build !386 && !s390x

package engine

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// returning runs a test with an open listener, if idle is not 0, and with connections
// that are reusable after io.EOF.
func returning(t *testing.T, idle time.Duration, test func(*world, *Returned)) {
	t.Helper()
	for _, plain := range []bool{false, true} {
		name := map[bool]string{false: "batches", true: "plain"}[plain]
		t.Run(name, func(t *testing.T) {
			r := NewReturned()
			if idle > 0 {
				r.Open(idle)
			}
			test(newWorld(t, Options{
				WriteTimeout: time.Minute, Plain: plain, Returned: r,
				Reusable: func(why error) bool { return why == io.EOF },
			}), r)
		})
	}
}

// reusable opens a stream on a connection that can be used again.
func (w *world) reusable(size int, unread string) (*script, *net.TCPConn) {
	w.t.Helper()
	ours, client := w.dial(size)
	s := newScript(w.t)
	socket := w.engine.NewSocket()
	if !socket.Reuse([]byte(unread)) {
		w.t.Fatal("it cannot be used again")
	}
	w.carry(socket, ours, s, s)
	return s, client
}

func transmit(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Error(err)
	}
}

// accept returns the next connection, or nil if there is none within the time.
func accept(t *testing.T, r *Returned, within time.Duration) net.Conn {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, _ := r.Accept()
		accepted <- conn
	}()
	select {
	case conn := <-accepted:
		return conn
	case <-time.After(within):
		return nil
	}
}

// TestReturned: the accepted connection has every byte that the client sent before,
// during and after the stream, and the answer to it follows the stream.
func TestReturned(t *testing.T) {
	returning(t, time.Minute, func(w *world, r *Returned) {
		before := descriptors(w.t)
		for _, unread := range []string{"", "first "} {
			for _, during := range []string{"", "second "} {
				for _, after := range []string{"", "third "} {
					want := unread + during + after
					if want == "" {
						continue
					}
					s, client := w.reusable(0, unread)
					s.send(nil, []byte("hello "))
					if _, err := io.ReadFull(client, make([]byte, 6)); err != nil {
						w.t.Fatal(err)
					}
					transmit(w.t, client, during)
					s.send(io.EOF, []byte("bye "))
					if err := s.ended(); err != io.EOF {
						w.t.Error(err)
					}
					transmit(w.t, client, after)
					conn := accept(w.t, r, time.Minute)
					if conn == nil {
						w.t.Fatalf("%q: not accepted", want)
					}
					got := make([]byte, len(want))
					if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
						w.t.Errorf("read %q, %v, want %q", got, err, want)
					}
					transmit(w.t, conn, "an answer")
					conn.Close()
					if got, err := io.ReadAll(client); err != nil || string(got) != "bye an answer" {
						w.t.Errorf("the client read %q, %v", got, err)
					}
					client.Close()
				}
			}
		}
		if n := w.engine.idle.unreadBytes; n != 0 {
			w.t.Errorf("%d bytes are kept", n)
		}
		await(w.t, "no descriptor is left open", func() bool { return descriptors(w.t) <= before })
	})
}

// TestReturnedBehindMuch: the kernel may still hold the last bytes of a stream when the
// connection is accepted.
func TestReturnedBehindMuch(t *testing.T) {
	returning(t, time.Minute, func(w *world, r *Returned) {
		const size = 1 << 20
		s, client := w.reusable(64<<10, "")
		s.send(io.EOF, numbered(0, 0, size))
		transmit(w.t, client, "more")
		read := make(chan error, 1)
		go func() {
			got := make([]byte, size)
			_, err := io.ReadFull(client, got)
			if err == nil && !bytes.Equal(got, numbered(0, 0, size)) {
				err = errors.New("something else")
			}
			read <- err
		}()
		conn := accept(w.t, r, time.Minute)
		if conn == nil {
			w.t.Fatal("not accepted")
		}
		defer conn.Close()
		if err := <-read; err != nil {
			w.t.Error(err)
		}
	})
}

// TestNotReturned: the engine closes the connection of a stream that breaks off, of one
// that ends while its client has not read everything, and of one without Reuse.
func TestNotReturned(t *testing.T) {
	returning(t, time.Minute, func(w *world, r *Returned) {
		before := descriptors(w.t)
		broken, client := w.reusable(0, "next")
		transmit(w.t, client, "more")
		broken.send(errors.New("broken"), []byte("hello"))
		if got, err := io.ReadAll(client); err != nil || string(got) != "hello" {
			w.t.Errorf("read %q, %v", got, err)
		}
		full, fullClient := w.reusable(64<<10, "next")
		full.send(nil, numbered(0, 0, 512<<10))
		await(w.t, "a full socket", func() bool { full.mu.Lock(); defer full.mu.Unlock(); return full.nexts > 0 && len(full.pieces) == 0 })
		full.mu.Lock()
		full.over = io.EOF
		full.mu.Unlock()
		full.Wake()
		if err := full.ended(); err != io.EOF {
			w.t.Error(err)
		}
		once, onceClient := w.stream(0)
		once.send(io.EOF, []byte("hello"))
		if got, err := io.ReadAll(onceClient); err != nil || string(got) != "hello" {
			w.t.Errorf("read %q, %v", got, err)
		}
		for _, c := range []net.Conn{client, fullClient, onceClient} {
			c.Close()
		}
		await(w.t, "no descriptor is left open", func() bool { return descriptors(w.t) <= before })
		if n := w.engine.idle.unreadBytes; n != 0 {
			w.t.Errorf("%d bytes are kept", n)
		}
		r.Close()
		if conn, err := r.Accept(); err == nil {
			w.t.Errorf("accepted %v", conn)
		}
	})
}

// TestIdle: a connection whose client sends nothing more is not accepted. The engine
// closes it at its deadline, when its client leaves, and when the listener or the engine
// is closed.
func TestIdle(t *testing.T) {
	const idle = 200 * time.Millisecond
	for _, way := range []string{"in time", "left", "listener closed", "engine closed"} {
		t.Run(way, func(t *testing.T) {
			returning(t, map[bool]time.Duration{true: idle, false: time.Minute}[way == "in time"], func(w *world, r *Returned) {
				before := descriptors(w.t)
				var clients []*net.TCPConn
				begin := time.Now()
				for range 5 {
					s, client := w.reusable(0, "")
					s.send(io.EOF, []byte("x"))
					if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
						w.t.Fatal(err)
					}
					if err := s.ended(); err != io.EOF {
						w.t.Fatal(err)
					}
					clients = append(clients, client)
				}
				waiting := func() int {
					w.engine.idle.mu.Lock()
					defer w.engine.idle.mu.Unlock()
					return w.engine.idle.waiting.Len()
				}
				await(w.t, "all wait", func() bool { return waiting() == 5 || way == "in time" })
				switch way {
				case "left":
					for _, c := range clients {
						c.Close()
					}
				case "listener closed":
					r.Close()
				case "engine closed":
					w.close()
				}
				for _, c := range clients {
					if n, err := c.Read(make([]byte, 1)); way != "left" && err != io.EOF {
						w.t.Errorf("read %d, %v", n, err)
					}
					c.Close()
				}
				if took := time.Since(begin); way == "in time" && took < idle {
					w.t.Errorf("closed after %v", took)
				}
				await(w.t, "none waits", func() bool { return waiting() == 0 })
				await(w.t, "no descriptor is left open", func() bool { return descriptors(w.t) <= before })
			})
		})
	}
}

// TestLinger: without an open listener, the engine closes connections, but even if their
// clients are sending at that moment, all of the stream arrives, and its end.
func TestLinger(t *testing.T) {
	returning(t, 0, func(w *world, _ *Returned) {
		const size = 300 << 10
		before := descriptors(w.t)
		s, client := w.reusable(64<<10, "")
		if w.engine.NewSocket().Reuse([]byte("GET")) {
			w.t.Error("the engine keeps a request without a server for it")
		}
		s.send(io.EOF, numbered(0, 0, size))
		wrote := make(chan struct{})
		go func() { // during the whole stream
			defer close(wrote)
			for range 100 {
				if _, err := client.Write(make([]byte, 1000)); err != nil {
					w.t.Errorf("write: %v", err)
					return
				}
				time.Sleep(time.Millisecond) // so that some of it comes after the end
			}
		}()
		demand(w.t, "the client", slowly{client}, 0, size)
		<-wrote
		client.Close()
		quiet, quietClient := w.reusable(0, "")
		quiet.send(io.EOF, []byte("x"))
		if got, err := io.ReadAll(quietClient); err != nil || string(got) != "x" {
			w.t.Errorf("read %q, %v", got, err)
		}
		defer quietClient.Close() // until then, the engine has closed its side
		await(w.t, "one descriptor is left", func() bool { return descriptors(w.t) <= before+1 })
	})
}

// TestIdleBounds: the oldest waiting connections make room for new ones, and the bytes of
// early requests have a limit.
func TestIdleBounds(t *testing.T) {
	returning(t, time.Minute, func(w *world, r *Returned) {
		before := descriptors(w.t)
		w.engine.idle.mu.Lock()
		w.engine.idle.limit = 3
		w.engine.idle.mu.Unlock()
		newest := func() (c *idleConn) {
			w.engine.idle.mu.Lock()
			defer w.engine.idle.mu.Unlock()
			if last := w.engine.idle.waiting.Back(); last != nil {
				c = last.Value.(*idleConn)
			}
			return c
		}
		var clients []*net.TCPConn
		for range 8 {
			s, client := w.reusable(0, "")
			clients = append(clients, client)
			last := newest()
			s.send(io.EOF, []byte("x"))
			await(w.t, "it waits", func() bool { return newest() != last })
			if _, err := io.ReadFull(client, make([]byte, 1)); err != nil {
				w.t.Fatal(err)
			}
		}
		for _, client := range clients[:5] {
			if n, err := client.Read(make([]byte, 1)); err != io.EOF {
				w.t.Errorf("of the oldest, read %d, %v", n, err)
			}
		}
		for _, client := range clients[5:] {
			transmit(w.t, client, "x")
			if conn := accept(w.t, r, time.Minute); conn == nil {
				w.t.Error("one of the newest is not accepted")
			} else {
				conn.Close()
			}
		}
		for _, client := range clients {
			client.Close()
		}
		var sockets []*Socket
		for piece := make([]byte, 4<<10); len(sockets) < 2*maxUnread/len(piece); {
			s := w.engine.NewSocket()
			if !s.Reuse(piece) {
				break
			}
			sockets = append(sockets, s)
		}
		if len(sockets) != maxUnread/(4<<10) {
			w.t.Errorf("%d requests are kept", len(sockets))
		}
		for _, s := range sockets {
			s.takeUnread()
		}
		if s := w.engine.NewSocket(); !s.Reuse(make([]byte, maxUnread)) || len(s.takeUnread()) != maxUnread {
			w.t.Error("there is no room, although none is kept")
		}
		await(w.t, "no descriptor is left open", func() bool { return descriptors(w.t) <= before })
	})
}
