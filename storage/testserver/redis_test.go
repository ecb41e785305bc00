package testserver

import (
	"net"
	"testing"
)

// TestRedisPortTaken: another process that has taken the port, and answers every
// command, is not taken for the server.
func TestRedisPortTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) // a client that is gone needs no answer
			c.Close()
		}
	}()
	r := &Redis{t: t, dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port}
	defer r.Kill()
	if r.start() == nil {
		t.Errorf("redis-server is said to have started: %s", r.out)
	}
}
