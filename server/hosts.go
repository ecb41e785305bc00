package server

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
)

// aHost matches a name as browsers send it.
var aHost = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?$`)

// CheckHosts returns an error unless each host is a name or an address without a port.
func CheckHosts(hosts []string) error {
	for _, host := range hosts {
		if !isAddress(host) && !aHost.MatchString(host) {
			return fmt.Errorf("%.100q is not a host such as rejoin.example, without scheme and port", host)
		}
	}
	return nil
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(unbracketed(host))
	return err == nil
}

// unbracketed returns a host without the brackets of an IPv6 address.
func unbracketed(host string) string {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); ok {
			return inner
		}
	}
	return host
}

// OriginHosts returns the hosts of origins that CheckOrigins accepts. It skips *.
func OriginHosts(origins []string) (hosts []string) {
	for _, origin := range origins {
		if u, err := url.Parse(origin); err == nil && u.Hostname() != "" {
			hosts = append(hosts, u.Hostname())
		}
	}
	return hosts
}

// OnlyHosts returns a handler that refuses requests for hosts other than these,
// localhost and loopback addresses. It ignores ports.
//
// The owner of a site can make its name resolve to this machine (DNS rebinding). To a
// visitor's browser, this server then belongs to the origin of the site's pages, so
// neither CORS nor [http.CrossOriginProtection] stops them: only the host reveals them.
// A request without a host passes, because every browser sends one. Requests for
// /healthz and /readyz pass, too: probes use any address. refusals may be nil.
func OnlyHosts(hosts []string, refusals *Refusals, next http.Handler) http.Handler {
	accepted := make([]string, len(hosts))
	for i, host := range hosts {
		accepted[i] = plainHost(unbracketed(host))
	}
	var last atomic.Pointer[string] // the last host that passed; nearly all are the same
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if known := last.Load(); known != nil && r.Host == *known {
			next.ServeHTTP(w, r)
			return
		}
		host := plainHost((&url.URL{Host: r.Host}).Hostname())
		switch {
		case host == "", host == "localhost", isLoopback(host), slices.Contains(accepted, host):
			last.Store(new(strings.Clone(r.Host)))
		case r.URL.Path == "/healthz", r.URL.Path == "/readyz":
		default:
			boundBody(w, r)
			identify(w, r, new([1]string))
			refusals.refuse(w, r, refusal{refusedHost, http.StatusMisdirectedRequest, fmt.Errorf("the host is %.100q", host)})
			writeProblem(w, http.StatusMisdirectedRequest, fmt.Sprintf("the host %.100q is not one of this server's: ask for localhost, or add it to server.hosts in the configuration", host))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// plainHost returns the form of a host for comparisons.
func plainHost(host string) string { return strings.ToLower(strings.TrimSuffix(host, ".")) }

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
