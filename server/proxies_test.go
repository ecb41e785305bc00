package server_test

import (
	"crypto/tls"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/rejoin/rejoin/server"
)

// TestClientBehindProxies: headers count only as far as trusted proxies wrote them.
func TestClientBehindProxies(t *testing.T) {
	const proxy, inner, stranger = "10.0.0.1:1234", "[fd00::2]:1234", "203.0.113.9:1234"
	unnamed := server.Client{Address: netip.MustParseAddr("10.0.0.1"), Scheme: "http", Host: "node:8080"}
	client := func(address, scheme, host string) server.Client {
		return server.Client{Address: netip.MustParseAddr(address), Scheme: scheme, Host: host}
	}
	for _, c := range []struct {
		name, peer string
		header     string // name: value lines
		want       server.Client
	}{
		{"a trusted proxy that sends none", proxy, "", unnamed},
		{"a stranger's headers", stranger, "X-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: https\nForwarded: for=1.2.3.4;host=evil", client("203.0.113.9", "http", "node:8080")},
		{"one proxy", proxy, "X-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: https\nX-Forwarded-Host: rejoin.example", client("1.2.3.4", "https", "rejoin.example")},
		{"a spoofed left entry", proxy, "X-Forwarded-For: 9.9.9.9, 1.2.3.4", client("1.2.3.4", "http", "node:8080")},
		{"a spoofed trusted entry", proxy, "X-Forwarded-For: 10.9.9.9, 1.2.3.4, 10.0.0.7", client("1.2.3.4", "http", "node:8080")},
		{"several header lines", proxy, "X-Forwarded-For: 9.9.9.9\nX-Forwarded-For: 1.2.3.4\nX-Forwarded-For: 10.0.0.7", client("1.2.3.4", "http", "node:8080")},
		{"trusted all the way", proxy, "X-Forwarded-For: 10.0.0.9, 10.0.0.7", client("10.0.0.9", "http", "node:8080")},
		{"a spoofed scheme", proxy, "X-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: https, http", client("1.2.3.4", "http", "node:8080")},
		{"a spoofed host", proxy, "X-Forwarded-Host: evil, rejoin.example", client("10.0.0.1", "http", "rejoin.example")},
		{"a scheme without an address", proxy, "X-Forwarded-Proto: HTTPS", client("10.0.0.1", "https", "node:8080")},
		{"IPv4 with a port", proxy, "X-Forwarded-For: 1.2.3.4:5678", client("1.2.3.4", "http", "node:8080")},
		{"IPv6", proxy, "X-Forwarded-For: 2001:db8::1", client("2001:db8::1", "http", "node:8080")},
		{"IPv6 with a port", proxy, "X-Forwarded-For: [2001:db8::1]:5678", client("2001:db8::1", "http", "node:8080")},
		{"IPv6 in brackets", proxy, "X-Forwarded-For: [2001:db8::1]", client("2001:db8::1", "http", "node:8080")},
		{"an IPv6 proxy", inner, "X-Forwarded-For: ::ffff:1.2.3.4", client("1.2.3.4", "http", "node:8080")},
		{"a zone", proxy, "X-Forwarded-For: fe80::1%eth0", client("fe80::1", "http", "node:8080")},
		{"unknown", proxy, "X-Forwarded-For: 9.9.9.9, unknown", unnamed},
		{"unknown behind a proxy", proxy, "X-Forwarded-For: unknown, 10.0.0.7", client("10.0.0.7", "http", "node:8080")},
		{"garbage", proxy, "X-Forwarded-For: <script>\nX-Forwarded-Proto: javascript\nX-Forwarded-Host: a b/c", unnamed},
		{"empty", proxy, "X-Forwarded-For: \nX-Forwarded-Proto:\nForwarded: ", unnamed},
		{"an empty entry", proxy, "X-Forwarded-For: 1.2.3.4,", unnamed},
		{"a host with a port", proxy, "X-Forwarded-Host: rejoin.example:8443", client("10.0.0.1", "http", "rejoin.example:8443")},
		{"a host with a strange port", proxy, "X-Forwarded-Host: rejoin.example:x", unnamed},
		{"an IPv6 host", proxy, "X-Forwarded-Host: [2001:db8::1]:80", client("10.0.0.1", "http", "[2001:db8::1]:80")},

		{"Forwarded", proxy, "Forwarded: For=1.2.3.4; Proto=https;host=rejoin.example;by=10.0.0.1", client("1.2.3.4", "https", "rejoin.example")},
		{"Forwarded, quoted", proxy, `Forwarded: for="[2001:db8::1]:4711";host="rejoin.example:8443" ; proto="https"`, client("2001:db8::1", "https", "rejoin.example:8443")},
		{"Forwarded, quoted port", proxy, `Forwarded: for="1.2.3.4:4711"`, client("1.2.3.4", "http", "node:8080")},
		{"Forwarded, escaped", proxy, `Forwarded: for="1.2.3\.4"`, client("1.2.3.4", "http", "node:8080")},
		{"Forwarded, a comma in quotes", proxy, `Forwarded: for=9.9.9.9;x="a,for=8.8.8.8", for=1.2.3.4`, client("1.2.3.4", "http", "node:8080")},
		{"Forwarded, several hops", proxy, "Forwarded: for=9.9.9.9;proto=http\nForwarded: for=1.2.3.4;proto=https;host=rejoin.example\nForwarded: for=10.0.0.7;proto=http;host=inner", client("1.2.3.4", "https", "rejoin.example")},
		{"Forwarded, the client's own part", proxy, "Forwarded: for=10.0.0.8;proto=https;host=evil, for=1.2.3.4;proto=http", client("1.2.3.4", "http", "node:8080")},
		{"Forwarded, hidden", proxy, "Forwarded: for=9.9.9.9, for=_hidden;proto=https", client("10.0.0.1", "https", "node:8080")},
		{"Forwarded, unknown", proxy, "Forwarded: for=unknown", unnamed},
		{"Forwarded, an open quote", proxy, `Forwarded: for="1.2.3.4`, unnamed},
		{"Forwarded, an open quote swallows", proxy, `Forwarded: for=";x=, for=1.2.3.4`, unnamed},
		{"Forwarded, an open quote on a line to the left", proxy, "Forwarded: for=\"\nForwarded: for=1.2.3.4", client("1.2.3.4", "http", "node:8080")},
		{"Forwarded, garbage", proxy, "Forwarded: ;;,,==\"", unnamed},
		{"Forwarded, without a for", proxy, "Forwarded: for=1.2.3.4, proto=https", client("10.0.0.1", "https", "node:8080")},

		{"both agree", proxy, "Forwarded: for=1.2.3.4;proto=https\nX-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: https", client("1.2.3.4", "https", "node:8080")},
		{"both disagree", proxy, "Forwarded: for=9.9.9.9;proto=https\nX-Forwarded-For: 1.2.3.4\nX-Forwarded-Proto: http\nX-Forwarded-Host: rejoin.example", client("10.0.0.1", "http", "rejoin.example")},
	} {
		t.Run(c.name, func(t *testing.T) {
			proxies, err := server.ParseProxies([]string{"10.0.0.0/8", "fd00::2"})
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest("GET", "http://node:8080/", nil)
			r.RemoteAddr = c.peer
			for line := range strings.Lines(c.header) {
				name, value, _ := strings.Cut(line, ":")
				r.Header.Add(name, strings.TrimSpace(value))
			}
			if got := proxies.Client(r); got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestClientWithoutProxies: without trusted proxies, the connection itself counts.
func TestClientWithoutProxies(t *testing.T) {
	r := httptest.NewRequest("GET", "https://node/", nil)
	r.RemoteAddr, r.TLS = "[fe80::1%lo]:1", &tls.ConnectionState{}
	r.Header = http.Header{"X-Forwarded-For": {"1.2.3.4"}, "X-Forwarded-Proto": {"http"}, "Forwarded": {"host=evil"}}
	want := server.Client{Address: netip.MustParseAddr("fe80::1"), Scheme: "https", Host: "node"}
	if got := server.Proxies(nil).Client(r); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	r.RemoteAddr = "@"
	all, err := server.ParseProxies([]string{"0.0.0.0/0", "::/0"})
	if err != nil {
		t.Fatal(err)
	}
	if got := all.Client(r); got.Address.IsValid() || got.Scheme != "https" {
		t.Errorf("a Unix socket: got %v", got)
	}
}

func TestParseProxies(t *testing.T) {
	for _, bad := range []string{"", "10.0.0.0/33", "proxy.internal", "10.0.0.1:80", "fe80::1%eth0", "::ffff:10.0.0.0/104", "10.0.0"} {
		if got, err := server.ParseProxies([]string{bad}); err == nil {
			t.Errorf("%q: got %v", bad, got)
		}
	}
	got, err := server.ParseProxies([]string{"10.1.2.3/8", "192.0.2.1", "::ffff:192.0.2.2", "2001:db8::/32"})
	if want := "[10.0.0.0/8 192.0.2.1/32 192.0.2.2/32 2001:db8::/32]"; err != nil || strings.Join(strings.Fields(want), " ") != strings.TrimSpace(printed(got)) {
		t.Errorf("got %v, %v", got, err)
	}
}

func printed(p server.Proxies) string {
	var all []string
	for _, network := range p {
		all = append(all, network.String())
	}
	return "[" + strings.Join(all, " ") + "]"
}
