package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/server/auth"
	"github.com/rejoin/rejoin/storage/testserver"
)

// writeCertificate makes a certificate for 127.0.0.1 and writes it to the files.
func writeCertificate(t *testing.T, files TLSConfig) *x509.Certificate {
	t.Helper()
	return testserver.WriteCertificate(t, files.Cert, files.Key, time.Now().Add(time.Hour))
}

func certificateFiles(t *testing.T) TLSConfig {
	dir := t.TempDir()
	return TLSConfig{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
}

// trusting is a client that trusts the certificate.
func trusting(t *testing.T, certificate *x509.Certificate, http2 bool) *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: http2}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// TestStreamsOfAConnection: if a connection allowed fewer streams than a browser has
// open, all other requests of the browser would wait for ever.
func TestStreamsOfAConnection(t *testing.T) {
	files := certificateFiles(t)
	certificate := writeCertificate(t, files)
	g, err := openSecurity(t.Context(), Config{TLS: files}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	url := "https://" + startTLS(t, g) + "/stream"
	client := trusting(t, certificate, true)
	connections := make(map[string]int)
	for range 251 {
		resp, err := client.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		connections[resp.Header.Get("From")]++
	}
	if counts := slices.Sorted(maps.Values(connections)); !slices.Equal(counts, []int{1, 250}) {
		t.Errorf("the connections have %v streams, want 250 and 1", counts)
	}
}

// startTLS serves with g until the end of the test.
func startTLS(t *testing.T, g security) string {
	t.Helper()
	s := newHTTPServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("From", r.RemoteAddr)
		_, _ = io.WriteString(w, r.Proto)
		if r.URL.Path == "/stream" {
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}
	}), slog.New(slog.DiscardHandler))
	g.secure(s, time.Minute)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- serveHTTP(s, g.over(listener, nil, slog.New(slog.DiscardHandler))) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// TestTLS: old clients keep HTTP/1.1, and unsafe versions are refused.
func TestTLS(t *testing.T) {
	files := certificateFiles(t)
	certificate := writeCertificate(t, files)
	g, err := openSecurity(t.Context(), Config{TLS: files}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	address := startTLS(t, g)
	for http2, want := range map[bool]string{true: "HTTP/2.0", false: "HTTP/1.1"} {
		resp, err := trusting(t, certificate, http2).Get("https://" + address)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if string(body) != want {
			t.Errorf("got %s, want %s", body, want)
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	for version, taken := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", address, &tls.Config{RootCAs: roots, MinVersion: version, MaxVersion: version})
		if (err == nil) != taken {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
		if err == nil {
			conn.Close()
		}
	}
}

// TestCertificateIsReadAgain: a renewed certificate takes effect without a restart,
// and a failed renewal stops no server.
func TestCertificateIsReadAgain(t *testing.T) {
	files := certificateFiles(t)
	first := writeCertificate(t, files)
	log := new(bytes.Buffer)
	c, err := openCertificate(files, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	address := startTLS(t, security{certificate: c})
	shown := func() []byte {
		t.Helper()
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true}) // the test compares it itself
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Raw
	}
	second := writeCertificate(t, files)
	if !slices.Equal(shown(), first.Raw) {
		t.Error("the files are read at every handshake")
	}
	c.mu.Lock()
	c.every = 0
	c.mu.Unlock()
	if !slices.Equal(shown(), second.Raw) {
		t.Error("the new certificate is not shown")
	}
	if err := os.WriteFile(files.Cert, []byte("half a cert"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(shown(), second.Raw) {
		t.Error("broken files take the certificate away")
	}
	if !strings.Contains(log.String(), "the old one stays") || strings.Contains(log.String(), "PRIVATE") {
		t.Errorf("the log: %s", log)
	}
	third := writeCertificate(t, files)
	if !slices.Equal(shown(), third.Raw) {
		t.Error("after broken files, nothing is read any more")
	}
}

// TestSecurityRefuses: nothing starts with files that cannot be used.
func TestSecurityRefuses(t *testing.T) {
	files, other := certificateFiles(t), certificateFiles(t)
	writeCertificate(t, files)
	writeCertificate(t, other)
	jwt := func(file string) Config { return Config{Auth: AuthConfig{Mode: "jwt", JWT: JWTConfig{KeyFile: file}}} }
	for _, test := range []struct {
		name string
		c    Config
		want string
	}{
		{"no certificate", Config{TLS: TLSConfig{"/nowhere/cert", files.Key}}, "tls.cert, tls.key: open /nowhere/cert"},
		{"of another key", Config{TLS: TLSConfig{files.Cert, other.Key}}, "tls.cert, tls.key: tls: private key does not match"},
		{"no key file", jwt("/nowhere/key"), "auth.jwt.key_file: open /nowhere/key"},
		{"a private key", jwt(files.Key), "auth.jwt.key_file: it has a private key"},
	} {
		if _, err := openSecurity(t.Context(), test.c, slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

const tokenSecret = "0123456789abcdef0123456789abcdef"

func TestToken(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.yaml")
	// token does not judge the rest of the configuration.
	if err := os.WriteFile(config, []byte("listen: 0.0.0.0:80\nauth: {jwt: {key: "+tokenSecret+", issuer: me}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	args := []string{"token", "--config", config, "--subscribe", "chat:*,news", "--subscribe", "log", "--publish", "chat:42", "--for", "2h"}
	if code := run(t.Context(), args, nil, &stdout, &stderr); code != exitOK || stderr.Len() > 0 {
		t.Fatalf("exit %d, %s", code, stderr.String())
	}
	token, rest, _ := strings.Cut(stdout.String(), "\n")
	if rest != "" {
		t.Errorf("more than the token: %q", rest)
	}
	v, err := auth.Open(t.Context(), auth.Options{Key: tokenSecret, Issuer: "me"})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("GET", "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	grant, err := v.Grant(r)
	if err != nil {
		t.Fatal(err)
	}
	if !grant.MaySubscribe("chat:1") || !grant.MaySubscribe("news") || !grant.MaySubscribe("log") || !grant.MayPublish("chat:42") || grant.MayPublish("news") || grant.Admin() {
		t.Errorf("%+v", grant)
	}
	if left := time.Until(grant.Expires()); left < 119*time.Minute || left > 2*time.Hour {
		t.Errorf("it is good for %v", left)
	}
}

// TestTokenPrivateKey: the server may have only the public key.
func TestTokenPrivateKey(t *testing.T) {
	files := certificateFiles(t)
	writeCertificate(t, files)
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"token", "--admin", "--private-key", files.Key}, nil, &stdout, &stderr); code != exitOK || strings.Count(stdout.String(), ".") != 2 {
		t.Errorf("exit %d, %s%s", code, stdout.String(), stderr.String())
	}
}

func TestTokenRefuses(t *testing.T) {
	public := filepath.Join(t.TempDir(), "public.pem")
	if err := os.WriteFile(public, []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		key  string
		args []string
		want string
	}{
		{"", []string{"--admin"}, "auth.jwt.key: there is no key to sign tokens with"},
		{"hunter2", []string{"--admin"}, "auth.jwt.key: a secret of 7 bytes is too short"},
		{tokenSecret, nil, "it would allow nothing"},
		{tokenSecret, []string{"--admin", "--for", "0s"}, "--for: 0s is not a second or more"},
		{tokenSecret, []string{"--admin", "--for", "forever"}, "invalid argument"},
		{tokenSecret, []string{"--publish", "a*b"}, `the pattern "a*b"`},
		{tokenSecret, []string{"--admin", "--private-key", public}, "--private-key: key_file: it has a PEM block of type \"PUBLIC KEY\""},
		{tokenSecret, []string{"--admin", "chat"}, "token takes no arguments"},
	} {
		t.Setenv("REJOIN_AUTH_JWT_KEY", test.key)
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), append([]string{"token"}, test.args...), nil, &stdout, &stderr)
		if code != exitUsage || stdout.Len() > 0 || !strings.Contains(stderr.String(), test.want) {
			t.Errorf("%q: exit %d, %s%s, want %q", test.args, code, stdout.String(), stderr.String(), test.want)
		}
		if strings.Contains(stderr.String(), "hunter2") || strings.Contains(stderr.String(), tokenSecret) {
			t.Errorf("the secret is printed: %s", stderr.String())
		}
	}
}

// TestTokenInUse: publish and tail send the token of the environment.
func TestTokenInUse(t *testing.T) {
	t.Setenv("REJOIN_AUTH_JWT_KEY", tokenSecret)
	ctx, signal := context.WithCancel(t.Context())
	srv := runServe(t, ctx, filepath.Join(t.TempDir(), "rejoin.db"), "--auth", "jwt")
	command := func(args ...string) (int, string, string) {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), args, strings.NewReader("x"), &stdout, &stderr)
		return code, strings.TrimSpace(stdout.String()), stderr.String()
	}
	publish := []string{"publish", "--feed", "log", "--url", srv.url, "x"}
	if code, _, stderr := command(publish...); code != exitFailed || !strings.Contains(stderr, "a token is needed (status 401)") {
		t.Errorf("without a token: exit %d, %s", code, stderr)
	}
	_, token, _ := command("token", "--publish", "log")
	t.Setenv("REJOIN_TOKEN", token)
	if code, id, stderr := command(publish...); code != exitOK || id != "1" {
		t.Errorf("exit %d, %s %s", code, id, stderr)
	}
	if code, _, stderr := command("tail", "--feed", "log", "--url", srv.url); code != exitFailed || !strings.Contains(stderr, "the token may not subscribe to log (status 403)") || strings.Contains(stderr, token) {
		t.Errorf("exit %d, %s", code, stderr)
	}
	signal()
	srv.await(t, "stopped")
	if code := <-srv.exit; code != exitOK {
		t.Errorf("exit %d", code)
	}
}
