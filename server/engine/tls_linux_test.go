//go:build !386 && !s390x

package engine

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// certificate is one that no client knows.
var certificate = func() *tls.Config {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	return &tls.Config{Certificates: s.TLS.Certificates}
}()

// secure opens a connection with a stream on it over TLS.
func (w *world) secure(size int, version uint16) (*script, *tls.Conn, *net.TCPConn) {
	w.t.Helper()
	ours, tcp := w.dial(size)
	client := tls.Client(tcp, &tls.Config{InsecureSkipVerify: true, MaxVersion: version})
	s := newScript(w.t)
	w.takeSecure(ours, s, client.Handshake)
	return s, client, tcp
}

// takeSecure makes the engine carry the stream on the connection, after a handshake.
func (w *world) takeSecure(ours *net.TCPConn, s *script, handshake func() error) {
	w.t.Helper()
	shaken := make(chan error, 1)
	go func() { shaken <- handshake() }()
	conn := tls.Server(&wire{Conn: ours}, certificate)
	if err := errors.Join(conn.Handshake(), <-shaken); err != nil {
		w.t.Fatal(err)
	}
	w.take(conn, s)
}

// TestTLSClientGone: the engine notices at once when a client leaves, in any way.
func TestTLSClientGone(t *testing.T) {
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		before := descriptors(w.t)
		for name, leave := range map[string]func(*tls.Conn, *net.TCPConn) error{
			"close notify": func(c *tls.Conn, _ *net.TCPConn) error { return c.CloseWrite() },
			"close":        func(c *tls.Conn, _ *net.TCPConn) error { return c.Close() },
			"no notice":    func(_ *tls.Conn, tcp *net.TCPConn) error { return tcp.Close() },
			"no record":    func(_ *tls.Conn, tcp *net.TCPConn) error { _, err := tcp.Write(noise[:100]); return err },
			"a forged record": func(_ *tls.Conn, tcp *net.TCPConn) error {
				_, err := tcp.Write(append([]byte{23, 3, 3, 0, 100}, noise[:100]...))
				return err
			},
		} {
			s, client, tcp := w.secure(0, tls.VersionTLS13)
			s.send(nil, []byte("hello"))
			if _, err := io.ReadFull(client, make([]byte, 5)); err != nil {
				w.t.Errorf("%s: %v", name, err)
			}
			if err := leave(client, tcp); err != nil {
				w.t.Errorf("%s: %v", name, err)
			}
			if err := s.ended(); err != ErrClientGone {
				w.t.Errorf("%s: ended with %v", name, err)
			}
			tcp.Close()
		}
		await(w.t, "no descriptor is left open", func() bool { return descriptors(w.t) <= before })
	})
}

// TestTLSSlowReader: a client that reads little at a time gets every byte, with each
// version of TLS, and in the end a notice that nothing follows.
func TestTLSSlowReader(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, repeats := range []bool{false, true} {
			overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
				s, client, _ := w.secure(8<<10, version)
				s.repeats = repeats
				var pieces [][]byte
				size := 0
				for i := range 40 {
					n := []int{1, 300, recordBytes, recordBytes + 1, 70 << 10}[i%5]
					pieces = append(pieces, numbered(1, size, n))
					size += n
				}
				s.send(errors.New("the end"), pieces...)
				demand(w.t, "slow", &littleReader{client}, 1, size)
				s.ended()
				if s.most > maxUnsent {
					w.t.Errorf("the socket has kept %d bytes", s.most)
				}
			})
		}
	}
}

// littleReader reads a few bytes at a time.
type littleReader struct{ r io.Reader }

func (r *littleReader) Read(b []byte) (int, error) { return r.r.Read(b[:min(len(b), 1000)]) }

// TestTLSKeyUpdate: a stream goes on with new keys, which the client or both sides
// change.
func TestTLSKeyUpdate(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatal("openssl is missing: apt-get install openssl")
	}
	overBoth(t, Options{WriteTimeout: time.Minute}, func(w *world) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		defer l.Close()
		client := exec.CommandContext(w.t.Context(), openssl, "s_client", "-tls1_3", "-connect", l.Addr().String())
		commands, _ := client.StdinPipe()
		output, _ := client.StdoutPipe()
		notes, _ := client.StderrPipe()
		if err := client.Start(); err != nil {
			w.t.Fatal(err)
		}
		ours, err := l.Accept()
		if err != nil {
			w.t.Fatal(err)
		}
		s := newScript(w.t)
		w.takeSecure(ours.(*net.TCPConn), s, func() error { return nil })
		lines, noted := bufio.NewReader(output), bufio.NewReader(notes)
		for _, command := range strings.Split("kKKkkK", "") {
			if _, err := io.WriteString(commands, command+"\n"); err != nil {
				w.t.Fatal(err)
			}
			// It takes only the first of the commands that it reads at once.
			for note := ""; note != "KEYUPDATE\n"; {
				if note, err = noted.ReadString('\n'); err != nil {
					w.t.Fatalf("%s: %v", command, err)
				}
			}
			s.send(nil, bytes.Repeat([]byte("x"), 20<<10), []byte("\nstill "+command+"\n"))
			for line := ""; line != "still "+command+"\n"; {
				if line, err = lines.ReadString('\n'); err != nil {
					w.t.Fatalf("%s: %v", command, err)
				}
			}
		}
		if _, err := io.WriteString(commands, "Q\n"); err != nil {
			w.t.Fatal(err)
		}
		if err := s.ended(); err != ErrClientGone {
			w.t.Errorf("ended with %v", err)
		}
		_ = client.Wait()
	})
}

// TestTLSReturned: after a stream that ended cleanly, the same TLS serves the next
// request, even one that came during the stream.
func TestTLSReturned(t *testing.T) {
	for _, early := range []bool{false, true} {
		returned := NewReturned()
		returned.Open(time.Minute)
		over := errors.New("over")
		w := newWorld(t, Options{WriteTimeout: time.Minute, Returned: returned, Reusable: func(err error) bool { return err == over }})
		ours, tcp := w.dial(0)
		client := tls.Client(tcp, &tls.Config{InsecureSkipVerify: true})
		s := newScript(t)
		shaken := make(chan error, 1)
		go func() { shaken <- client.Handshake() }()
		conn := tls.Server(&wire{Conn: ours}, certificate)
		if err := errors.Join(conn.Handshake(), <-shaken); err != nil {
			t.Fatal(err)
		}
		socket := w.engine.NewSocket()
		socket.Reuse(nil)
		w.carry(socket, conn, s, s)
		ask := func() { io.WriteString(client, "next request") } //nolint:errcheck // what arrives is checked
		if early {
			ask()
			await(t, "it is read", func() bool { return socket.flags.Load()&pipelined != 0 })
		}
		s.send(over, []byte("stream"))
		demandBytes(t, client, "stream")
		if !early {
			ask()
		}
		again, err := returned.Accept()
		if err != nil {
			t.Fatal(err)
		}
		demandBytes(t, again, "next request")
		if _, err := io.WriteString(again, "answer"); err != nil {
			t.Error(err)
		}
		demandBytes(t, client, "answer")
		again.Close()
	}
}

func demandBytes(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Errorf("read %q, %v, want %q", got, err, want)
	}
}
