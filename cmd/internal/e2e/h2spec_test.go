package e2e

import (
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestH2Spec runs the conformance tests of github.com/summerwind/h2spec.
func TestH2Spec(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"), append(newCertificateFiles(t).env(), "REJOIN_SERVER_HTTP2=engine")...)
	host, port, err := net.SplitHostPort(strings.TrimPrefix(p.url, "https://"))
	if err != nil {
		t.Fatal(err)
	}
	// Some of its tests send more on a stream while that is being answered. If the
	// answer comes first, they fail.
	var failures string
	for range 3 {
		cmd := exec.CommandContext(t.Context(), "go", "tool", "-modfile=tools.mod", "h2spec", "-h", host, "-p", port, "-t", "-k", "-P", "/healthz")
		cmd.Dir = filepath.Join("..", "..", "..")
		out, err := cmd.CombinedOutput()
		if err == nil && strings.Contains(string(out), " 0 failed") {
			return
		}
		_, failures, _ = strings.Cut(string(out), "Failures:")
		failures = fmt.Sprint(err, failures)
	}
	t.Errorf("h2spec: %s", failures)
}
