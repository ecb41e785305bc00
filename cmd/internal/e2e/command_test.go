package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// The exit codes of the command.
const (
	exitOK     = 0
	exitFailed = 1
)

// outcome is how a command ended.
type outcome struct {
	code           int
	stdout, stderr string
}

// figures reads what --json printed.
func (o outcome) figures(t *testing.T) map[string]any {
	t.Helper()
	var figures map[string]any
	o.read(t, &figures)
	return figures
}

// read reads what --json printed.
func (o outcome) read(t *testing.T, to any) {
	t.Helper()
	if err := json.Unmarshal([]byte(o.stdout), to); err != nil {
		t.Fatalf("exit %d, %v: %q, %q", o.code, err, o.stdout, o.stderr)
	}
}

// startCommand starts the command in a process of its own. The function that it
// returns waits for its end, which has to come within the time.
func startCommand(t *testing.T, within time.Duration, env []string, args ...string) (*process, func() outcome) {
	t.Helper()
	cmd := exec.Command(built(t, false), args...)
	// A process with the race detector would wait a second at its end.
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=10"), env...)
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	p := launch(t, cmd)
	return p, func() outcome {
		t.Helper()
		select {
		case <-p.done:
		case <-time.After(within):
			t.Fatalf("rejoin %q does not end:\n%s", args, p.log)
		}
		return outcome{cmd.ProcessState.ExitCode(), stdout.String(), p.log.String()}
	}
}

// runCommand runs the command to its end.
func runCommand(t *testing.T, args ...string) outcome {
	t.Helper()
	_, wait := startCommand(t, time.Minute, nil, args...)
	return wait()
}

// tokenSecret is what tokens are signed with in the tests.
const tokenSecret = "0123456789abcdef0123456789abcdef"

// makeTokenWith runs the command that makes tokens.
func makeTokenWith(t testing.TB, binary string, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary, append([]string{"token"}, args...)...)
	cmd.Env = append(os.Environ(), "REJOIN_AUTH_JWT_KEY="+tokenSecret)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("rejoin token %q: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}

// awaitPublished waits until n more events are in the feeds whose names begin so.
func awaitPublished(t *testing.T, server, prefix string, n feed.ID) {
	t.Helper()
	c := clientOf(t, server)
	published := func() (total feed.ID) {
		for info, err := range c.Feeds(t.Context(), prefix) {
			if err != nil {
				t.Fatal(err)
			}
			total += info.Last
		}
		return total
	}
	want := published() + n
	for deadline := time.Now().Add(time.Minute); published() < want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is published")
		}
	}
}

// sleep waits for d, or until ctx ends: then it returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// certificateFiles are the files of a certificate for 127.0.0.1.
type certificateFiles struct{ cert, key string }

// newCertificateFiles writes the certificate that httptest has.
func newCertificateFiles(t *testing.T) certificateFiles {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	server.Close()
	pair := server.TLS.Certificates[0]
	private, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	files := certificateFiles{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	for name, block := range map[string]*pem.Block{
		files.cert: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, files.key: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// env returns the settings of a server with the certificate.
func (f certificateFiles) env() []string {
	return []string{"REJOIN_TLS_CERT=" + f.cert, "REJOIN_TLS_KEY=" + f.key}
}

// client returns a client that trusts the certificate.
func (f certificateFiles) client(t *testing.T) *http.Client {
	t.Helper()
	roots, text := x509.NewCertPool(), readFile(t, f.cert)
	if !roots.AppendCertsFromPEM([]byte(text)) {
		t.Fatalf("no certificate is in %q", text)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
