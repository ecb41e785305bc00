//go:build firefox

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// TestFirefox: Firefox shows the console and follows a hundred feeds over HTTP/2, as
// [TestBrowserHTTP2] has it of Chromium.
func TestFirefox(t *testing.T) {
	const streams, events = 100, 20
	path, err := exec.LookPath("firefox-esr")
	if err != nil {
		t.Fatalf("this test needs Firefox: apt-get install firefox-esr (%v)", err)
	}
	installed, err := npmInstalled("testdata/firefox")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/firefox")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(installed, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	n := serveHTTP2(t)
	cmd := exec.CommandContext(t.Context(), "node", "firefox.mjs", path, n.url, fmt.Sprint(streams), fmt.Sprint(events))
	cmd.Dir, cmd.Stderr = dir, t.Output()
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // and it ends Firefox
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	if !lines.Scan() || lines.Text() != "following" {
		t.Fatalf("it says %q, and follows nothing", lines.Text())
	}
	n.publishAcrossARestart(streams, events)
	lines.Scan()
	var result struct {
		Protocol string
		Faults   []string
		Got      [][]string
	}
	if err := json.Unmarshal(lines.Bytes(), &result); err != nil {
		t.Fatalf("it says %q: %v", lines.Text(), err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if result.Protocol != "h2" || len(result.Faults) > 0 {
		t.Errorf("the pages came over %q, with %q", result.Protocol, result.Faults)
	}
	var want []string
	for id := range events {
		want = append(want, fmt.Sprint(id+1))
	}
	for i, ids := range result.Got {
		if !slices.Equal(ids, want) {
			t.Errorf("stream %d has %s, want %s", i, ids, want)
		}
	}
	if len(result.Got) != streams {
		t.Errorf("%d streams, want %d", len(result.Got), streams)
	}
}
