package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/rejoin/rejoin/server"
	"github.com/rejoin/rejoin/server/auth"
)

// JWTConfig describes the good tokens, if auth.mode is jwt.
type JWTConfig struct {
	Key        string // the secret as it is
	KeyFile    string // a file with a secret, or a public key as PEM
	JWKSURL    string // of a JSON Web Key Set
	Algorithms []string
	Issuer     string
	Audience   string
}

// ForwardConfig describes the application that is asked, if auth.mode is forward.
type ForwardConfig struct {
	URL         string
	CAFile      string        // with the certificates that sign that of the application
	Timeout     time.Duration // until an answer
	Cache       time.Duration // for which an answer counts
	Recheck     time.Duration // between two questions about an open stream
	Grace       time.Duration // for which streams outlive the last answer
	Concurrency int           // of questions
}

// TLSConfig names the files of the certificate; empty for plain HTTP.
type TLSConfig struct {
	Cert string
	Key  string
}

func (c TLSConfig) scheme() string {
	if c.Cert != "" {
		return "https:"
	}
	return "http:"
}

// CORSConfig is about browsers on pages of other origins.
type CORSConfig struct {
	Origins []string // exact ones, or * alone
}

func (c JWTConfig) options(logger *slog.Logger) auth.Options {
	return auth.Options{
		Key: c.Key, KeyFile: c.KeyFile, JWKSURL: c.JWKSURL,
		Algorithms: c.Algorithms, Issuer: c.Issuer, Audience: c.Audience,
		Logger: logger,
	}
}

func (c ForwardConfig) options(logger *slog.Logger) auth.ForwardOptions {
	return auth.ForwardOptions{
		URL: c.URL, CAFile: c.CAFile, Timeout: c.Timeout, Cache: c.Cache,
		Recheck: c.Recheck, Grace: c.Grace, Concurrency: c.Concurrency,
		Logger: logger,
	}
}

// jwtKey begins the names of the options of tokens, and forwardKey those of the
// application that is asked.
const (
	jwtKey     = "auth.jwt."
	forwardKey = "auth.forward."
)

func checkJWT(c AuthConfig) error {
	if c.Mode != "jwt" {
		if keyed := c.JWT.Key+c.JWT.KeyFile+c.JWT.JWKSURL != ""; keyed && !c.Written {
			return errors.New("auth.mode: auth.jwt is set, but only auth.mode: jwt checks tokens")
		}
		return nil
	}
	var faults []error
	for _, fault := range c.JWT.options(nil).Faults() {
		faults = append(faults, fmt.Errorf(jwtKey+"%w", fault))
	}
	return errors.Join(faults...)
}

func checkForward(c AuthConfig) error {
	faults := []error{
		checkBetween(forwardKey+"timeout", c.Forward.Timeout, 10*time.Millisecond, time.Minute),
		checkBetween(forwardKey+"cache", c.Forward.Cache, 0, time.Hour),
		checkBetween(forwardKey+"recheck", c.Forward.Recheck, time.Second, 24*time.Hour),
		checkBetween(forwardKey+"grace", c.Forward.Grace, 0, 30*24*time.Hour),
		checkBetween(forwardKey+"concurrency", c.Forward.Concurrency, 1, 10_000),
	}
	switch {
	case c.Mode == "forward":
		for _, fault := range c.Forward.options(nil).Faults() {
			faults = append(faults, fmt.Errorf(forwardKey+"%w", fault))
		}
	case c.Forward.URL != "" && !c.Written:
		faults = append(faults, errors.New("auth.mode: auth.forward is set, but only auth.mode: forward asks the application"))
	}
	return errors.Join(faults...)
}

func checkTLS(c TLSConfig) error {
	switch {
	case c.Cert != "" && c.Key == "":
		return errors.New("tls.key: tls.cert needs one")
	case c.Cert == "" && c.Key != "":
		return errors.New("tls.cert: tls.key needs one")
	}
	return nil
}

func checkOrigins(origins []string) error {
	if err := server.CheckOrigins(origins); err != nil {
		return fmt.Errorf("cors.origins: %w", err)
	}
	return nil
}

func checkHosts(hosts []string) error {
	if err := server.CheckHosts(hosts); err != nil {
		return fmt.Errorf("server.hosts: %w", err)
	}
	return nil
}

func checkProxies(networks []string) error {
	if _, err := server.ParseProxies(networks); err != nil {
		return fmt.Errorf("server.trusted_proxies: %w", err)
	}
	return nil
}

// proxies returns server.trusted_proxies.
func (c ServerConfig) proxies() server.Proxies {
	p, _ := server.ParseProxies(c.TrustedProxies) // Validate has seen to it that it can be read
	return p
}

func checkBasePath(path string) error {
	if _, err := server.ParseBasePath(path); err != nil {
		return fmt.Errorf("server.base_path: %w", err)
	}
	return nil
}

// basePath returns server.base_path in the form of the server.
func (c ServerConfig) basePath() string {
	base, _ := server.ParseBasePath(c.BasePath) // Validate has seen to it that it can be read
	return base
}

// publicHosts guards the handler of the public address from pages of other sites that
// pass for pages of this server. A token does that as well. On an address that others
// reach by names of their own, it takes a list of them.
func (c Config) publicHosts(address net.Addr, refusals *server.Refusals, handler http.Handler) http.Handler {
	anyPage := slices.Contains(c.CORS.Origins, "*") // which may do the same openly
	if c.Auth.Mode != "none" || anyPage || !onLoopback(address) && len(c.Server.Hosts) == 0 {
		return handler
	}
	hosts := slices.Concat(c.Server.Hosts, server.OriginHosts(c.CORS.Origins), hostOf(c.Listen))
	return server.OnlyHosts(hosts, refusals, handler)
}

// adminHosts does it for the address of operators, which never asks for a token. The
// pages of cors.origins have no business there.
func (c Config) adminHosts(address net.Addr, refusals *server.Refusals, handler http.Handler) http.Handler {
	if !onLoopback(address) {
		return handler
	}
	return server.OnlyHosts(slices.Concat(c.Server.Hosts, hostOf(c.Admin.Listen)), refusals, handler)
}

// hostOf returns the host of an address to listen on, if it has one.
func hostOf(listen string) []string {
	host, _, err := net.SplitHostPort(listen)
	if err != nil || host == "" {
		return nil
	}
	return []string{host}
}

// onLoopback reports whether only this machine reaches a listener. Unlike loopback,
// it goes by the address itself, not by how that was written.
func onLoopback(address net.Addr) bool {
	tcp, ok := address.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// security stands between the network and a node.
type security struct {
	authorizer  auth.Authorizer // nil: everybody may everything
	certificate *certificate    // nil: plain HTTP
}

func openSecurity(ctx context.Context, c Config, logger *slog.Logger) (g security, err error) {
	if c.TLS.Cert != "" {
		if g.certificate, err = openCertificate(c.TLS, logger); err != nil {
			return security{}, err
		}
	}
	if g.authorizer, err = openAuthorizer(ctx, c.Auth, logger); err != nil {
		return security{}, err
	}
	return g, nil
}

// openAuthorizer returns nil if everybody may everything.
func openAuthorizer(ctx context.Context, c AuthConfig, logger *slog.Logger) (auth.Authorizer, error) {
	switch c.Mode {
	case "jwt":
		verifier, err := auth.Open(ctx, c.JWT.options(logger))
		if err != nil {
			return nil, fmt.Errorf(jwtKey+"%w", err)
		}
		return verifier, nil
	case "forward":
		forward, err := auth.OpenForward(c.Forward.options(logger))
		if err != nil {
			return nil, fmt.Errorf(forwardKey+"%w", err)
		}
		return forward, nil
	}
	return nil, nil
}

// files returns the names of the files with keys and certificates, by their keys in the
// configuration.
func (c AuthConfig) files() map[string]string {
	switch {
	case c.Mode == "jwt" && c.JWT.KeyFile != "":
		return map[string]string{jwtKey + "key_file": c.JWT.KeyFile}
	case c.Mode == "forward" && c.Forward.CAFile != "":
		return map[string]string{forwardKey + "ca_file": c.Forward.CAFile}
	}
	return nil
}

func (g security) close() { closeAuthorizer(g.authorizer) }

func closeAuthorizer(a auth.Authorizer) {
	if a != nil {
		a.Close()
	}
}

// over returns the listener, with TLS if there is a certificate. HTTP/2 connections that
// takeHTTP2 does not take are for net/http.
func (g security) over(l net.Listener, takeHTTP2 func(net.Conn) bool, logger *slog.Logger) net.Listener {
	if g.certificate == nil {
		return l
	}
	return server.NewTLSListener(l, g.certificate.config(), takeHTTP2, func(conn net.Conn, err error) {
		logger.Warn("connection failed", "from", conn.RemoteAddr().String(), "error", err)
	})
}

// answerTimeout is how long an answer may take from the request's head on, until
// the client has read it. Streams and pages have times of their own.
const answerTimeout = 2 * time.Minute

// secure prepares s for the public. It closes connections whose clients do not
// read, after writeTimeout without a byte, and speaks TLS if there is a certificate.
func (g security) secure(s *http.Server, writeTimeout time.Duration) {
	s.WriteTimeout = answerTimeout
	if g.certificate == nil {
		// Over HTTP/2, net/http would set a timer for each stream.
		s.ReadTimeout = server.BodyTimeout
		return
	}
	s.TLSConfig = g.certificate.config()
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetHTTP2(true)
	s.HTTP2 = &http.HTTP2Config{
		// A browser has one connection for all its tabs, each with a stream or
		// a few: at the usual 100, one more request would wait for ever. A
		// gateway opens another connection when one is full. Each stream
		// costs a goroutine, so there has to be an end.
		MaxConcurrentStreams: 250,
		// What a connection, and a request of it, can make this process hold
		// unread. A body is read at once, so this bounds no speed that matters.
		MaxReceiveBufferPerConnection: 1 << 20,
		MaxReceiveBufferPerStream:     256 << 10,
		// An idle connection keeps the buffer of the largest frame it has sent.
		MaxReadFrameSize: 64 << 10,
		WriteByteTimeout: writeTimeout,
	}
}

// certificateEvery is how long a certificate is used before its files are read
// again: renewals need neither a restart nor a signal.
const certificateEvery = time.Minute

// certificate is the one that the server shows, as its files had it last.
type certificate struct {
	files  TLSConfig
	every  time.Duration
	logger *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	read    time.Time
}

func openCertificate(files TLSConfig, logger *slog.Logger) (*certificate, error) {
	c := &certificate{files: files, every: certificateEvery, logger: logger}
	if err := c.load(); err != nil {
		return nil, err
	}
	return c, nil
}

// load needs mu, once others know of c.
func (c *certificate) load() error {
	c.read = time.Now()
	pair, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return fmt.Errorf("tls.cert, tls.key: %w", err)
	}
	c.current = &pair
	return nil
}

// get returns the certificate for a handshake. Files that cannot be used, such
// as those of a renewal half done, leave the one that there is.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.read) >= c.every {
		if err := c.load(); err != nil {
			c.logger.Warn("the certificate cannot be read again; the old one stays", "error", err)
		}
	}
	return c.current, nil
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}
}
