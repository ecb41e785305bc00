package server

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
)

// Client is where a request comes from, and how its client reached the server.
type Client struct {
	Address netip.Addr // without a zone; zero for a Unix socket
	Scheme  string     // http or https
	Host    string     // as in the client's Host header
}

// Proxies holds the networks of proxies whose word about their clients counts.
type Proxies []netip.Prefix

// ParseProxies reads networks such as 10.0.0.0/8 and single addresses.
func ParseProxies(networks []string) (Proxies, error) {
	var p Proxies
	for _, text := range networks {
		network, err := netip.ParsePrefix(text)
		if address, addressErr := netip.ParseAddr(text); addressErr == nil && address.Zone() == "" {
			address = address.Unmap()
			network, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		if err != nil || network.Addr().Is4In6() {
			return nil, fmt.Errorf("%.100q is not a network such as 10.0.0.0/8, and not an address", text)
		}
		p = append(p, network.Masked())
	}
	return p, nil
}

func (p Proxies) trust(address netip.Addr) bool {
	for _, network := range p {
		if network.Contains(address) {
			return true
		}
	}
	return false
}

// Client returns the client of r. If the connection comes from one of the proxies, the
// headers Forwarded (RFC 7239) and X-Forwarded-For, -Proto and -Host describe the
// client. Otherwise Client ignores them, because any client can send them. It ignores
// what it cannot read. Where Forwarded contradicts an X-Forwarded header, one of them
// may come from the client through a proxy that sets only the other, so neither counts.
func (p Proxies) Client(r *http.Request) Client {
	c := Client{Address: peerOf(r), Scheme: "http", Host: r.Host}
	if r.TLS != nil {
		c.Scheme = "https"
	}
	if len(p) == 0 || !p.trust(c.Address) {
		return c
	}
	forwarded, x := p.find(forwardedHops(r.Header)), p.find(xForwardedHops(r.Header))
	return Client{
		Address: agreed(forwarded.Address, x.Address, c.Address),
		Scheme:  agreed(forwarded.Scheme, x.Scheme, c.Scheme),
		Host:    agreed(forwarded.Host, x.Host, c.Host),
	}
}

// agreed returns what a and b agree on, or the one that is not zero. Otherwise it
// returns own.
func agreed[T comparable](a, b, own T) T {
	var zero T
	switch {
	case a == b && a != zero, a != zero && b == zero:
		return a
	case b != zero && a == zero:
		return b
	}
	return own
}

// peerOf returns the address at the other end of the request's connection.
func peerOf(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // a Unix socket has none
	}
	return plainAddress(peer.Addr())
}

func plainAddress(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// hop is what one proxy wrote about the request that it got. Strings are empty if they
// are missing.
type hop struct{ from, scheme, host string }

// find returns what is known about the client after these hops, the nearest last. A hop
// that a trusted proxy wrote names the next one to its left, or the client: what stands
// further left comes from the client. If no trusted proxy knows the client's address,
// the result has the address of the last proxy that is known.
func (p Proxies) find(hops []hop) (c Client) {
	for i := len(hops) - 1; i >= 0; i-- {
		if scheme := strings.ToLower(hops[i].scheme); scheme == "http" || scheme == "https" {
			c.Scheme = scheme
		}
		if isHost(hops[i].host) {
			c.Host = hops[i].host
		}
		if hops[i].from == "" {
			return c
		}
		address, ok := parseNode(hops[i].from)
		if !ok {
			return c
		}
		c.Address = address
		if !p.trust(address) {
			return c
		}
	}
	return c
}

// isHost reports whether the text is a host with or without a port.
func isHost(text string) bool {
	host := text
	if i := strings.LastIndexByte(text, ':'); i >= 0 && !strings.HasSuffix(text, "]") {
		host = text[:i]
		for _, digit := range text[i+1:] {
			if digit < '0' || digit > '9' {
				return false
			}
		}
	}
	return aHost.MatchString(host) || strings.HasPrefix(host, "[") && isAddress(host)
}

// parseNode parses an address with or without a port. It reports false for anything
// else, such as unknown.
func parseNode(node string) (netip.Addr, bool) {
	if address, err := netip.ParseAddr(unbracketed(node)); err == nil {
		return plainAddress(address), true
	}
	address, err := netip.ParseAddrPort(node)
	return plainAddress(address.Addr()), err == nil
}

// xForwardedHops returns the hops of the X-Forwarded headers. Proxies append to -For. Of
// -Proto and -Host, the last value counts: others may come from the client.
func xForwardedHops(h http.Header) []hop {
	nearest := hop{scheme: lastOf(h, "X-Forwarded-Proto"), host: lastOf(h, "X-Forwarded-Host")}
	var hops []hop
	for _, from := range listOf(h, "X-Forwarded-For") {
		hops = append(hops, hop{from: from})
	}
	if len(hops) == 0 {
		return []hop{nearest}
	}
	nearest.from = hops[len(hops)-1].from
	hops[len(hops)-1] = nearest
	return hops
}

func lastOf(h http.Header, name string) string {
	if entries := listOf(h, name); len(entries) > 0 {
		return entries[len(entries)-1]
	}
	return ""
}

// listOf returns the entries of a header that is a list.
func listOf(h http.Header, name string) (entries []string) {
	for _, line := range h[name] {
		for entry := range strings.SplitSeq(line, ",") {
			entries = append(entries, strings.TrimSpace(entry))
		}
	}
	return entries
}

// forwardedHops returns the hops of the header Forwarded. What a malformed line says
// cannot be told apart, so it is one hop about which nothing is known.
func forwardedHops(h http.Header) (hops []hop) {
	for _, line := range h["Forwarded"] {
		read, ok := parseForwarded(line)
		if !ok {
			read = []hop{{}}
		}
		hops = append(hops, read...)
	}
	return hops
}

// parseForwarded parses a line such as for=192.0.2.43;proto=https, for="[2001:db8::1]".
func parseForwarded(line string) (hops []hop, ok bool) {
	var current hop
	for {
		name, rest, found := strings.Cut(line, "=")
		if !found {
			return nil, false
		}
		value, rest, ok := cutForwarded(rest)
		if !ok {
			return nil, false
		}
		switch name = strings.TrimSpace(name); {
		case strings.EqualFold(name, "for"):
			current.from = value
		case strings.EqualFold(name, "proto"):
			current.scheme = value
		case strings.EqualFold(name, "host"):
			current.host = value
		case strings.ContainsAny(name, ",; \t"):
			return nil, false
		}
		if rest == "" {
			return append(hops, current), true
		}
		if rest[0] == ',' {
			hops, current = append(hops, current), hop{}
		}
		line = rest[1:]
	}
}

// cutForwarded cuts a token or a quoted string off. The rest is empty, or begins with the
// next separator.
func cutForwarded(text string) (value, rest string, ok bool) {
	quoted, isQuoted := strings.CutPrefix(text, `"`)
	if !isQuoted {
		if i := strings.IndexAny(text, ",;"); i >= 0 {
			text, rest = text[:i], text[i:]
		}
		return strings.TrimSpace(text), rest, !strings.Contains(text, `"`)
	}
	var unescaped strings.Builder
	for i := 0; i < len(quoted); i++ {
		switch quoted[i] {
		case '"':
			rest = strings.TrimSpace(quoted[i+1:])
			return unescaped.String(), rest, rest == "" || rest[0] == ',' || rest[0] == ';'
		case '\\':
			if i++; i == len(quoted) {
				return "", "", false
			}
		}
		unescaped.WriteByte(quoted[i])
	}
	return "", "", false
}
