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
	var got int
	var failed error
	err = raw.Control(func(fd uintptr) { got, failed = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout) })
	if err != nil || failed != nil || got != 12_000 {
		t.Errorf("TCP_USER_TIMEOUT is %d ms: %v, %v", got, err, failed)
	}
}
