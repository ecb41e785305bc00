package e2e

import (
	"maps"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
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
	// Some of its tests send more on a stream while that is being answered, and fail if
	// the answer comes first. None fails each time.
	var always map[string]bool
	for try := range 8 {
		cmd := exec.CommandContext(t.Context(), "go", "tool", "-modfile=tools.mod", "h2spec", "-h", host, "-p", port, "-t", "-k", "-P", "/healthz")
		cmd.Dir = filepath.Join("..", "..", "..")
		out, _ := cmd.CombinedOutput() // an error if a test fails
		summary := h2specSummary.FindSubmatch(out)
		if summary == nil {
			t.Fatalf("h2spec did not run its tests:\n%s", out)
		}
		failed := make(map[string]bool)
		for line := range strings.Lines(string(out)) {
			if _, name, ok := strings.Cut(line, "× "); ok && (try == 0 || always[name]) {
				failed[name] = true
			}
		}
		if always = failed; len(always) == 0 {
			return
		}
	}
	t.Errorf("h2spec: each time, these failed: %q", slices.Collect(maps.Keys(always)))
}

// h2specSummary matches the end of a run.
var h2specSummary = regexp.MustCompile(`145 tests, \d+ passed, 0 skipped, \d+ failed`)
