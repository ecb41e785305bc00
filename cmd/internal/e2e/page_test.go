package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The examples of docs/ai.md and docs/clients.md are run as the pages have them.

// namedBlock is a fenced block whose first line is a comment with a name.
var namedBlock = regexp.MustCompile("(?ms)^```[a-z]+\n(?://|#|<!--) ([^\n]*?)(?: -->)?\n(.*?)^```$")

// readExamples returns the blocks of a page by their names.
func readExamples(t *testing.T, page string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../../../docs", page))
	if err != nil {
		t.Fatal(err)
	}
	blocks := make(map[string]string)
	for _, match := range namedBlock.FindAllStringSubmatch(string(text), -1) {
		if _, twice := blocks[match[1]]; twice {
			t.Fatalf("%s has two examples %q", page, match[1])
		}
		blocks[match[1]] = match[2]
	}
	return blocks
}

// checkAllRun demands that a page marks each of its examples that is not run.
func checkAllRun(t *testing.T, blocks map[string]string, run ...string) {
	t.Helper()
	for name := range blocks {
		if strings.HasSuffix(name, "not run by the tests") == slices.Contains(run, name) {
			t.Errorf("the example %q is neither run nor marked", name)
		}
	}
}

// example returns one of the blocks.
func example(t *testing.T, blocks map[string]string, name string) string {
	t.Helper()
	text, ok := blocks[name]
	if !ok {
		t.Fatalf("the page has no example %q", name)
	}
	return text
}

// writeExamples writes the modules of a page into a directory in which they find what
// they import, beside the programs that run them.
func writeExamples(t *testing.T, blocks map[string]string, programs ...string) (dir string) {
	t.Helper()
	clients := nodeDir(t)
	dir, err := os.MkdirTemp(clients, "examples-")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range blocks {
		if strings.HasSuffix(name, ".mjs") {
			writeFile(t, filepath.Join(dir, name), text)
		}
	}
	for _, name := range programs {
		writeFile(t, filepath.Join(dir, name), readFile(t, filepath.Join(clients, name)))
	}
	return dir
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
