package main

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// TestGiveUpAfter: the sockets that are accepted have to have the option; that
// the listening one has it says nothing.
func TestGiveUpAfter(t *testing.T) {
	listener, err := listen(t.Context(), "127.0.0.1:0", 12*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, option := range []struct{ level, name, want int }{
		{syscall.IPPROTO_TCP, tcpUserTimeout, 11_000},
		{syscall.SOL_SOCKET, syscall.SO_KEEPALIVE, 1},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE, 15},
		{syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL, 15},
	} {
		var got int
		var failed error
		err = raw.Control(func(fd uintptr) { got, failed = syscall.GetsockoptInt(int(fd), option.level, option.name) })
		if err != nil || failed != nil || got != option.want {
			t.Errorf("option %d of %d is %d, want %d: %v, %v", option.name, option.level, got, option.want, err, failed)
		}
	}
}
