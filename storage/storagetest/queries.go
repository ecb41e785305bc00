package storagetest

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Queries checks the statements of the store in the current directory: each of them in
// the files of queries has a name of its own, and the code runs all of them, and no
// other. The code gets one with a function query.
func Queries(t *testing.T, statements map[string]string) {
	t.Helper()
	named := find(t, "queries/*.sql", `(?m)^-- name: (.*)$`)
	used := slices.Compact(find(t, "*.go", `query\("([a-z_]+)"\)`))
	if have := slices.Sorted(maps.Keys(statements)); !slices.Equal(named, have) {
		t.Errorf("the files name %q, but %q can be run", named, have)
	}
	if !slices.Equal(named, used) {
		t.Errorf("the files name %q, but the code runs %q", named, used)
	}
}

// find returns the matches of the pattern's group in the files that are not tests,
// sorted.
func find(t *testing.T, files, pattern string) (found []string) {
	t.Helper()
	names, err := filepath.Glob(files)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %d files, %v", files, len(names), err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			found = append(found, match[1])
		}
	}
	slices.Sort(found)
	return found
}
