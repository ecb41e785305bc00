package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/postgres"
	"github.com/rejoin/rejoin/storage/sqlite"
)

// logAddresses logs where the server listens.
func (s *serving) logAddresses() {
	c, address := s.config, s.public.listener.Addr()
	s.logger.Info("listening", "address", address.String(), "url", c.TLS.scheme()+urlOf(address), "version", currentVersion())
	if c.Server.Demo {
		s.logger.Info("serving the demo", "url", c.TLS.scheme()+urlOf(address)+"/demo")
	}
	if s.admin != nil {
		address := s.admin.listener.Addr()
		s.logger.Info("listening for operators", "address", address.String(), "metrics", "http:"+urlOf(address)+"/metrics")
	}
	s.warnRisks(c)
}

// warnRisks warns of the risks of c that the configuration before it did not have.
func (s *serving) warnRisks(c Config) {
	before := s.risks
	s.risks = c.risks()
	for _, risk := range s.risks {
		if !slices.Contains(before, risk) {
			s.logger.Warn(risk)
		}
	}
}

// logNode logs what a node that has been opened works with. Nothing of it is secret.
func (s *serving) logNode() {
	version, migrated, risk := "", []string(nil), ""
	switch store := s.node.store.(type) {
	case *postgres.Store:
		o := store.Opened()
		version, migrated, risk = o.Version, o.Migrated, o.Risk
	case *sqlite.Store:
		o := store.Opened()
		version, migrated = o.Version, o.Migrated
	}
	attrs := []any{"store", storeAt(s.config.Store.URL), "version", version}
	if len(migrated) > 0 {
		attrs = append(attrs, "migrated", strings.Join(migrated, ", "))
	}
	s.logger.Info("the store is open", append(attrs, "bus", busAt(s.config.Bus.URL, s.node.bus))...)
	if risk != "" {
		s.logger.Warn(risk, "store", storeAt(s.config.Store.URL))
	}
	s.logger.Info("serving", "auth", s.config.Auth.describe(), "origins", listed(s.config.CORS.Origins), "retention", retained(s.config.Retention))
}

// peersAfter is the time after which a node knows which others are alive.
const peersAfter = 3 * time.Second

// logPeers logs how many other nodes are alive, once that is known.
func (s *serving) logPeers(ctx context.Context) {
	if s.config.Bus.URL == "memory" {
		return
	}
	select {
	case <-time.After(peersAfter):
		s.logger.Info("other nodes are known", "nodes", s.node.feeds.Hub.Peers())
	case <-ctx.Done():
	}
}

// busAt returns where a bus is, without names and passwords.
func busAt(url string, bus feed.Bus) string {
	if place, ok := bus.(fmt.Stringer); ok {
		return place.String()
	}
	kind, _, _ := strings.Cut(url, ":")
	return kind
}

func (c AuthConfig) describe() string {
	switch {
	case c.Mode != "jwt":
		return c.Mode
	case c.JWT.JWKSURL != "":
		if u, err := url.Parse(c.JWT.JWKSURL); err == nil {
			return "jwt, with the keys of " + u.Host
		}
	case c.JWT.KeyFile != "":
		return "jwt, with the key in " + c.JWT.KeyFile
	}
	return "jwt, with a key"
}

func listed(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

func retained(rules []feed.Rule) string {
	if len(rules) == 0 {
		return "everything"
	}
	const most = 5
	var all []string
	for _, rule := range rules[:min(len(rules), most)] {
		text := rule.Feeds + ":"
		if rule.Age > 0 {
			text += " " + rule.Age.String()
		}
		if rule.Events > 0 {
			text += fmt.Sprintf(" %d events", rule.Events)
		}
		all = append(all, text)
	}
	if more := len(rules) - most; more > 0 {
		all = append(all, fmt.Sprintf("%d more", more))
	}
	return strings.Join(all, "; ")
}

// isPlain reports whether a URL leads to another machine without TLS.
func isPlain(address string) bool {
	u, err := url.Parse(address)
	return err == nil && u.Scheme == "http" && !loopback(u.Hostname())
}

// risks returns what is unsafe about the configuration, if others can reach the server.
func (c Config) risks() (risks []string) {
	host, _, _ := net.SplitHostPort(c.Listen)
	public := !loopback(host)
	if public && c.Auth.Mode == "none" {
		risks = append(risks, "anyone who reaches this address may read and publish everything: auth.mode is none")
	}
	if c.Auth.Mode == "none" && slices.Contains(c.CORS.Origins, "*") {
		risks = append(risks, "any page in a browser that reaches this address may read and publish everything: auth.mode is none and cors.origins is *")
	}
	if public && c.Auth.Mode != "none" && c.TLS.Cert == "" && len(c.Server.TrustedProxies) == 0 {
		risks = append(risks, "tokens and events travel unencrypted, unless a proxy in front uses TLS: tls.cert is not set; set server.trusted_proxies if there is a proxy")
	}
	if c.Auth.Mode == "jwt" && isPlain(c.Auth.JWT.JWKSURL) {
		risks = append(risks, "anyone who can change the traffic can make tokens: auth.jwt.jwks_url is not https")
	}
	if c.Auth.Mode == "forward" && isPlain(c.Auth.Forward.URL) {
		risks = append(risks, "anyone who can read the traffic gets the cookies of all visitors: auth.forward.url is not https")
	}
	if host, _, err := net.SplitHostPort(c.Admin.Listen); err == nil && !loopback(host) {
		risks = append(risks, "anyone who reaches admin.listen may read metrics and profiles, and slow this process down: it has no authentication")
	}
	for _, network := range c.Server.proxies() {
		if network.Bits() == 0 {
			risks = append(risks, "any client can choose its address in limits and the log: server.trusted_proxies has "+network.String())
		}
	}
	return risks
}
