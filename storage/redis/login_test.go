package redis_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/redis"
	"github.com/rejoin/rejoin/storage/testserver"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	const secret, other = "s3cret/with#odd@signs", "wr0ng"
	server := testserver.StartRedis(t, "--requirepass", secret)
	o := options()
	teller, n := pair(t, server.URL(), o, "chat")
	flows(t, teller, n, "chat")

	allow(t, server, "resetpass", ">"+secret)
	escaped := "s3cret%2Fwith%23odd%40signs"
	url := "redis://rejoin:" + escaped + "@" + server.Addr()
	o = options()
	teller, n = pair(t, url, o, "chat")
	flows(t, teller, n, "chat")
	hear(t, url, o).hears(teller, 5*time.Second)

	for _, url := range []string{
		"redis://" + server.Addr(),
		"redis://:" + other + "@" + server.Addr(),
		"redis://rejoin:" + other + "@" + server.Addr() + "/3",
		"redis://nobody:" + escaped + "@" + server.Addr(),
	} {
		b, err := redis.Open(url, o)
		if err == nil {
			b.Close()
			t.Errorf("open %s: no error", url)
			continue
		}
		if strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), other) {
			t.Errorf("the error has a password in it: %v", err)
		}
	}
}

// allow makes the user rejoin with the rights that doc.go lists, or gives it further
// rules.
func allow(t *testing.T, server *testserver.Redis, rules ...any) {
	t.Helper()
	all := append([]any{"acl", "setuser", "rejoin", "on", "nopass", "resetchannels", "~test:*", "&test:*", "+ping",
		"+xadd", "+xread", "+xrange", "+xrevrange", "+expire", "+del", "+publish", "+subscribe"}, rules...)
	if err := direct(t, server.URL()).Do(t.Context(), all...).Err(); err != nil {
		t.Fatal(err)
	}
}

// If the password changes while the bus runs, no log has it either.
func TestLoginLost(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t, "--requirepass", "s3cret")
	teller, n := pair(t, server.URL(), options(), "chat")
	flows(t, teller, n, "chat")
	admin := direct(t, server.URL())
	admin.ConfigSet(t.Context(), "requirepass", "changed")
	server.Pause() // every connection is lost
	eventually(t, 5*time.Second, "the outage is noticed", func() bool { return n.bus.Ping(t.Context()) != nil })
	server.Resume()
	eventually(t, 5*time.Second, "the refusal is noticed", func() bool {
		err := n.bus.Ping(t.Context())
		return err != nil && strings.Contains(err.Error(), "WRONGPASS")
	})
	err := tell(teller, n.world.commit("chat", 1))
	admin.Do(t.Context(), "auth", "changed")
	admin.ConfigSet(t.Context(), "requirepass", "s3cret")
	n.arrives(2 * time.Second)
	if said := fmt.Sprint(err, n.log); strings.Contains(said, "s3cret") {
		t.Errorf("a password was written down: %s", said)
	}
}

// Whatever is wrong with a URL, the error shows no part that may be a password.
func TestURLs(t *testing.T) {
	for _, url := range []string{
		"", "redis", "s3cret", "redis:s3cret", "http://u:s3cret@host", "redis+x://u:s3cret@host", "redis+://host",
		"redis://u:s3cret#x@host", "redis://u:s3cret/x@host:1", "redis://u:s3cret%zz@host", "redis://u:s3cret@host:s3cret",
		"redis://u:s3cret@", "redis://", "redis://u:s3cret@host:0", "redis://u:s3cret@host:99999", "redis://u:s3cret@a:b:c",
		"redis://u:s3cret@a,b", "redis://u:s3cret@host/s3cret", "redis://host/-1", "redis://host/1/2", "redis://host?s3cret_x=1",
		"redis://host?password=s3cret", "redis://host?skip_verify=true", "rediss://host?skip_verify=s3cret",
		"redis+sentinel://u:s3cret@host", "redis+cluster://u:s3cret@host/3", "redis+cluster://host?sentinel_password=s3cret",
	} {
		b, err := redis.Open(url, options())
		if err == nil {
			b.Close()
			t.Errorf("open %q: no error", url)
		} else if strings.Contains(strings.ReplaceAll(err.Error(), "s3cret_x", ""), "s3cret") {
			t.Errorf("open %q: the error has a secret in it: %v", url, err)
		}
	}
	for _, url := range []string{
		"redis://127.0.0.1:1", "redis://u:p@[::1]:1/5", "rediss://127.0.0.1:1?skip_verify=true",
		"redis+sentinel://:p@127.0.0.1:1,127.0.0.1:2/main/2?sentinel_username=x&sentinel_password=y",
		"redis+cluster://127.0.0.1:1,127.0.0.1:2", "rediss+cluster://127.0.0.1:1",
	} {
		b, err := redis.Open(url, options())
		if err != nil {
			t.Errorf("open %q: %v", url, err)
			continue
		}
		b.Close()
	}
	for _, o := range []redis.Options{
		{}, {StoreID: named("")}, {StoreID: named("a{b")}, {StoreID: named("a"), Prefix: "}"}, {StoreID: named("a"), Shards: -1}, {StoreID: named("a"), Shards: 5000},
		{StoreID: named("a"), StreamLength: -1}, {StoreID: named("a"), Expiry: -1},
	} {
		if b, err := redis.Open("redis://127.0.0.1:1", o); err == nil {
			b.Close()
			t.Errorf("open with %+v: no error", o)
		}
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	dir, pool := t.TempDir(), x509.NewCertPool()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	pool.AddCert(testserver.WriteCertificate(t, certFile, keyFile, time.Now().Add(time.Hour)))
	server := testserver.StartRedis(t, "--tls-cert-file", certFile, "--tls-key-file", keyFile,
		"--tls-ca-cert-file", certFile, "--tls-auth-clients", "no", "--requirepass", "s3cret")
	o := options()
	o.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	teller, n := pair(t, server.URL(), o, "chat")
	flows(t, teller, n, "chat")

	hear(t, server.URL(), o).hears(teller, 5*time.Second)

	o = options()
	teller, n = pair(t, server.URL()+"?skip_verify=true", o, "chat")
	flows(t, teller, n, "chat")

	// The certificate is unknown, so the bus sends nothing to that server.
	b := open(t, server.URL(), o)
	defer b.Close()
	eventually(t, 20*time.Second, "the error of a tell names the certificate", func() bool { // or that time ran out
		err := tell(b, newWorld().commit("chat", 1))
		if err == nil {
			t.Fatal("tell to an unknown server: no error")
		}
		return strings.Contains(err.Error(), "certificate")
	})
}

// A Redis that is loading its data answers LOADING to everything.
func TestLoading(t *testing.T) {
	t.Parallel()
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
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					// A command is an array: its first line begins with *.
					if strings.HasPrefix(lines.Text(), "*") {
						fmt.Fprint(c, "-LOADING Redis is loading the dataset in memory\r\n")
					}
				}
			}()
		}
	}()
	teller, n := pair(t, "redis://"+l.Addr().String(), options(), "chat")
	if err := tell(teller, n.world.commit("chat", 1)); err == nil || !strings.Contains(err.Error(), "LOADING") {
		t.Errorf("tell while loading: got %v, want LOADING", err)
	}
	eventually(t, 3*time.Second, "the tail says so", func() bool {
		err := n.bus.Ping(t.Context())
		return err != nil && strings.Contains(err.Error(), "LOADING")
	})
	// After several attempts, the log still has one line about it.
	eventually(t, 5*time.Second, "the tail tries again", func() bool { return n.bus.Stats().Reconnects > 3 })
	if got := n.log.count("\n"); got != 1 {
		t.Errorf("the log has %d lines:\n%s", got, n.log)
	}
}
