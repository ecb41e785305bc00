package e2e

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var halfOpenDefaults = flag.Bool("half-open-defaults", false, "whether TestHalfOpen waits as long as users do")

// insideHalfOpen marks the process that runs TestHalfOpen in a network of its own,
// with the path of the command.
const insideHalfOpen = "REJOIN_TEST_HALF_OPEN_INSIDE"

// lost is the address of the clients that vanish.
const lost = "127.0.0.2"

// TestHalfOpen: clients vanish without a packet: their machine is gone, or a
// firewall has forgotten them. Neither an end nor a reset tells the server; what it
// cannot write is the only sign, and if it did not heed that, it would keep them for
// a quarter of an hour each. With -half-open-defaults, the settings are those that
// users have, and it takes 45 seconds.
func TestHalfOpen(t *testing.T) {
	if binary := os.Getenv(insideHalfOpen); binary != "" {
		testHalfOpen(t, binary)
		return
	}
	t.Parallel()
	if os.Getuid() != 0 {
		t.Fatal("packets are dropped in a network namespace, which only root may make")
	}
	for _, program := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("%s is missing: apt-get install iproute2 nftables", program)
		}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHalfOpen$", "-test.v",
		fmt.Sprint("-detect-races=", *detectRaces), fmt.Sprint("-half-open-defaults=", *halfOpenDefaults))
	cmd.Env = append(os.Environ(), insideHalfOpen+"="+built(t, false))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestHalfOpen") {
		t.Fatalf("in a network namespace: %v\n%s", err, out)
	}
	t.Logf("in a network namespace:\n%s", out)
}

func testHalfOpen(t *testing.T, binary string) {
	const streams = 20 // half of which have something waiting for them
	run := func(command string) {
		t.Helper()
		words := strings.Fields(command)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", command, err, out)
		}
	}
	run("ip link set lo up")
	env := []string{"REJOIN_ADMIN_LISTEN=127.0.0.1:0"}
	within := 45 * time.Second // a heartbeat, and the write timeout
	if !*halfOpenDefaults {
		env = append(env, "REJOIN_SUBSCRIBE_WRITE_TIMEOUT=2s", "REJOIN_SUBSCRIBE_HEARTBEAT=1s")
		within = 30 * time.Second // 3, on a machine with nothing else to do
	}
	p := serve(t, binary, filepath.Join(t.TempDir(), "rejoin.db"), env...)
	p.awaitReady()
	admin := p.adminURL()
	subscribe := func(from, feed string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := d.Dial("tcp", strings.TrimPrefix(p.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_, err = fmt.Fprintf(conn, "GET /v1/feeds/%s/events HTTP/1.1\r\nHost: localhost\r\n\r\n", feed)
		if _, failed := conn.Read(make([]byte, 1000)); err != nil || failed != nil {
			t.Fatal(errors.Join(err, failed))
		}
		return conn
	}
	there := subscribe("127.0.0.1", "quiet")
	cold := soakOf(p, admin)
	for i := range streams {
		subscribe(lost, []string{"quiet", "loud"}[i%2])
	}
	if h := soakOf(p, admin); h.subscribers != streams+1 {
		t.Fatalf("%v: want %d subscribers", h, streams+1)
	}
	run("nft add table ip test")
	run("nft add chain ip test in { type filter hook input priority 0 ; }")
	run("nft add rule ip test in ip saddr " + lost + " counter drop")
	run("nft add rule ip test in ip daddr " + lost + " counter drop")
	began := time.Now()
	for range 100 { // much more than the sockets of those who do not read take
		if _, err := publish(http.DefaultClient, p.url, "loud", strings.Repeat("x", 50_000)); err != nil {
			t.Fatal(err)
		}
	}
	for {
		h, took := soakOf(p, admin), time.Since(began)
		if h.subscribers == 1 && h.descriptors <= cold.descriptors+2 {
			t.Logf("freed after %.1f s", took.Seconds())
			break
		}
		if took > within {
			t.Fatalf("after %v: %v, before they came: %v", took, h, cold)
		}
		time.Sleep(50 * time.Millisecond) // until the time has come
	}
	// Who is there and listens is not taken for one of them.
	if _, err := publish(http.DefaultClient, p.url, "quiet", "still there"); err != nil {
		t.Fatal(err)
	}
	_ = there.SetReadDeadline(time.Now().Add(30 * time.Second))
	var got []byte
	for !strings.Contains(string(got), "still there") {
		b := make([]byte, 1000)
		n, err := there.Read(b)
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got = append(got, b[:n]...)
	}
}
