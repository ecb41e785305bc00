// Package rooms checks every package of this module against the plan of the house:
// its imports, and whether it may read the environment.
package rooms

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/rejoin/rejoin"

// room lists what the packages of a directory and below may import, beside the
// standard library.
type room struct {
	dir       string
	ours      []string // directories of this module
	theirs    []string // other modules, or packages of them
	testOnly  bool     // may be imported only by tests and by the importers
	importers []string // files that are not tests, as patterns of path.Match
	usedBy    string   // the directory that may import it, beside itself; if empty, the lists of the others decide
}

// rooms is the plan of the house; the first that fits a package counts.
var rooms = []room{
	{dir: "cmd/rejoin", ours: []string{"cmd/internal", "feed", "server", "storage", "web"}, theirs: []string{
		"github.com/spf13/cobra", "github.com/spf13/pflag", "github.com/spf13/viper", "golang.org/x/sync/errgroup",
		"github.com/prometheus", "go.yaml.in/yaml/v3", "go.opentelemetry.io/otel"}},
	{dir: "cmd/internal/bench", ours: []string{"feed", "cmd/internal/reach"}, usedBy: "cmd/rejoin"},
	{dir: "cmd/internal/verify", ours: []string{"feed", "cmd/internal/reach"}, usedBy: "cmd/rejoin"},
	{dir: "cmd/internal/reach", ours: []string{"feed/client"}, usedBy: "cmd"},
	{dir: "cmd/internal/demo", ours: []string{"feed", "web"}, usedBy: "cmd/rejoin"},
	{dir: "cmd/internal/e2e", testOnly: true},
	{dir: "cmd/internal/rooms", testOnly: true},
	{dir: "cmd/internal/pages", testOnly: true},
	{dir: "server/h2", ours: []string{"server/engine"}, theirs: []string{"golang.org/x/net/http2", "golang.org/x/net/http/httpguts"}, usedBy: "server"},
	{dir: "server", ours: []string{"feed", "server"}, theirs: []string{
		"github.com/go-chi/chi/v5", "github.com/go-chi/cors", "github.com/prometheus", "github.com/golang-jwt/jwt/v5",
		"github.com/MicahParks/keyfunc/v3", "go.opentelemetry.io/otel", "golang.org/x/time/rate"}},
	{dir: "feed/feedtest", ours: []string{"feed"}, theirs: []string{"github.com/google/go-cmp"}, testOnly: true,
		importers: []string{"cmd/internal/verify/*"}},
	{dir: "feed/client/clienttest", testOnly: true},
	{dir: "feed/client", ours: []string{"feed"}, usedBy: "cmd"},
	{dir: "feed"},
	{dir: "storage/storagetest", ours: []string{"feed"}, theirs: []string{"github.com/google/go-cmp"}, testOnly: true},
	{dir: "storage/testserver", theirs: []string{"github.com/jackc/pgx/v5"}, testOnly: true},
	{dir: "storage/queries", usedBy: "storage"},
	{dir: "storage/sqlite", ours: []string{"feed", "storage/queries"}, theirs: []string{"github.com/mattn/go-sqlite3", "github.com/pressly/goose/v3"}},
	{dir: "storage/postgres", ours: []string{"feed", "storage/queries"}, theirs: []string{"github.com/jackc/pgx/v5", "github.com/pressly/goose/v3"}},
	{dir: "storage/redis", ours: []string{"feed"}, theirs: []string{"github.com/redis/go-redis/v9"}},
	{dir: "storage/memory", ours: []string{"feed"}},
	{dir: "web"},
}

// atTheRoot lists the names at the root of the module, beside names that begin with a
// dot.
var atTheRoot = strings.Fields(`cmd server feed storage web config.yaml Dockerfile go.mod go.sum README.md
	Makefile LICENSE CHANGELOG.md CONTRIBUTING.md compose.yaml deploy docs tools.mod tools.sum`)

// source is what the rules look at in one Go file that is not a test.
type source struct {
	name        string // from the root of the module
	imports     []string
	environment []string // functions of package os with which it reads the environment
}

// violations returns the imports and calls that break the rules.
func violations(sources []source) (found []string) {
	for _, s := range sources {
		at := slices.IndexFunc(rooms, func(r room) bool { return within(path.Dir(s.name), r.dir) })
		if at < 0 {
			found = append(found, s.name+": is in no room of the plan")
			continue
		}
		for _, imported := range s.imports {
			if !rooms[at].allows(s, imported) {
				found = append(found, s.name+": imports "+imported)
			}
		}
		for _, call := range s.environment {
			// Tests may get the addresses of existing servers: REJOIN_TEST_….
			if !within(s.name, "cmd/rejoin") && !rooms[at].testOnly {
				found = append(found, s.name+": calls os."+call)
			}
		}
	}
	return found
}

func (r room) allows(s source, imported string) bool {
	if imported == "C" {
		return s.name == "cmd/rejoin/system_linux.go" // for what has to be done before Go's runtime starts
	}
	if s.name == "cmd/rejoin/main.go" && imported == "github.com/mattn/go-sqlite3" {
		return true // by name only: it is compiled first
	}
	dir, own := strings.CutPrefix(imported, module+"/")
	if !own {
		first, _, _ := strings.Cut(imported, "/")
		standard := !strings.Contains(first, ".")
		return standard || slices.ContainsFunc(r.theirs, func(allowed string) bool { return within(imported, allowed) })
	}
	for _, other := range rooms {
		if other.usedBy != "" && within(dir, other.dir) && !within(s.name, other.dir) && !within(s.name, other.usedBy) {
			return false
		}
		if other.testOnly && within(dir, other.dir) && !within(s.name, other.dir) {
			return slices.ContainsFunc(other.importers, func(pattern string) bool {
				match, err := path.Match(pattern, s.name)
				return match && err == nil
			})
		}
	}
	return slices.ContainsFunc(r.ours, func(allowed string) bool { return within(dir, allowed) })
}

// within reports whether name is dir or below it.
func within(name, dir string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

// TestImports holds every package to the plan of the house.
func TestImports(t *testing.T) {
	sources, err := readSources("../../..")
	if err != nil {
		t.Fatal(err)
	}
	if len(sources) < 10 {
		t.Fatalf("found only %d files", len(sources))
	}
	for _, v := range violations(sources) {
		t.Error(v)
	}
}

// TestAtTheRoot: a file that is not in the plan belongs elsewhere.
func TestAtTheRoot(t *testing.T) {
	entries, err := os.ReadDir("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// What git ignores there: a built command and its stores.
		ignored := e.Name() == "bin" || e.Name() == "rejoin" || strings.Contains(e.Name(), ".db")
		if !strings.HasPrefix(e.Name(), ".") && !ignored && !slices.Contains(atTheRoot, e.Name()) {
			t.Errorf("%s does not belong at the root", e.Name())
		}
	}
}

// TestViolationsAreFound proves that the rules refuse what they should, and no more.
func TestViolationsAreFound(t *testing.T) {
	const sqlite3, viper, prometheus = "github.com/mattn/go-sqlite3", "github.com/spf13/viper", "github.com/prometheus/client_golang/prometheus"
	for _, test := range []struct {
		source source
		want   []string
	}{
		{source{name: "cmd/rejoin/serve.go", imports: []string{"os", "net/http", viper, prometheus, module + "/storage/sqlite", module + "/web"}}, nil},
		{source{name: "cmd/rejoin/serve.go", imports: []string{"C"}}, []string{"imports C"}},
		{source{name: "cmd/rejoin/system_linux.go", imports: []string{"C"}}, nil},
		{source{name: "cmd/rejoin/load.go", environment: []string{"Environ"}}, nil},
		{source{name: "cmd/rejoin/verify.go", imports: []string{module + "/cmd/internal/verify"}}, nil},
		{source{name: "cmd/rejoin/verify.go", imports: []string{module + "/feed/feedtest"}}, []string{"imports " + module + "/feed/feedtest"}},
		{source{name: "cmd/rejoin/verify.go", imports: []string{module + "/cmd/internal/e2e"}}, []string{"imports " + module + "/cmd/internal/e2e"}},
		{source{name: "cmd/internal/verify/verify.go", imports: []string{module + "/feed/feedtest", module + "/feed/client", module + "/cmd/internal/reach"}}, nil},
		{source{name: "cmd/internal/verify/verify.go", imports: []string{module + "/server", module + "/cmd/internal/bench"}}, []string{"imports " + module + "/server", "imports " + module + "/cmd/internal/bench"}},
		{source{name: "cmd/internal/verify/verify.go", environment: []string{"Getenv"}}, []string{"calls os.Getenv"}},
		{source{name: "cmd/internal/bench/run.go", imports: []string{module + "/feed", module + "/feed/client"}}, nil},
		{source{name: "cmd/internal/bench/run.go", imports: []string{module + "/feed/feedtest", "github.com/spf13/cobra"}}, []string{"imports " + module + "/feed/feedtest", "imports github.com/spf13/cobra"}},
		{source{name: "cmd/internal/reach/reach.go", imports: []string{module + "/feed/client"}}, nil},
		{source{name: "feed/hub.go", imports: []string{module + "/cmd/internal/verify"}}, []string{"imports " + module + "/cmd/internal/verify"}},
		{source{name: "cmd/internal/misc/misc.go"}, []string{"is in no room of the plan"}},
		{source{name: "server/verify.go", imports: []string{module + "/feed/feedtest"}}, []string{"imports " + module + "/feed/feedtest"}},
		{source{name: "cmd/rejoin/serve.go", imports: []string{module + "/feed/feedtest"}}, []string{"imports " + module + "/feed/feedtest"}},
		{source{name: "cmd/rejoin/serve.go", imports: []string{sqlite3}}, []string{"imports " + sqlite3}},
		{source{name: "server/server.go", imports: []string{"github.com/go-chi/chi/v5/middleware", module + "/feed", module + "/server/sse"}}, nil},
		{source{name: "server/auth/jwt.go", imports: []string{module + "/storage/sqlite", viper}}, []string{"imports " + module + "/storage/sqlite", "imports " + viper}},
		{source{name: "server/server.go", imports: []string{module + "/web", module + "/cmd/rejoin"}}, []string{"imports " + module + "/web", "imports " + module + "/cmd/rejoin"}},
		{source{name: "feed/hub.go", imports: []string{"sync", "encoding/json"}}, nil},
		{source{name: "feed/hub.go", imports: []string{prometheus}}, []string{"imports " + prometheus}},
		{source{name: "feed/hub.go", imports: []string{"golang.org/x/sync/errgroup", "C"}}, []string{"imports golang.org/x/sync/errgroup", "imports C"}},
		{source{name: "feed/hub.go", imports: []string{module + "/server"}}, []string{"imports " + module + "/server"}},
		{source{name: "feed/hub.go", environment: []string{"Getenv"}}, []string{"calls os.Getenv"}},
		{source{name: "feed/hub.go", imports: []string{"github.com/google/go-cmp/cmp"}}, []string{"imports github.com/google/go-cmp/cmp"}},
		{source{name: "feed/hub.go", imports: []string{module + "/feed/client"}}, []string{"imports " + module + "/feed/client"}},
		{source{name: "feed/client/follow.go", imports: []string{"net/http", module + "/feed"}}, nil},
		{source{name: "feed/client/follow.go", imports: []string{module + "/server/sse", prometheus}}, []string{"imports " + module + "/server/sse", "imports " + prometheus}},
		{source{name: "feed/client/follow.go", imports: []string{module + "/feed/feedtest"}}, []string{"imports " + module + "/feed/feedtest"}},
		{source{name: "feed/client/client.go", environment: []string{"Getenv"}}, []string{"calls os.Getenv"}},
		{source{name: "cmd/rejoin/tail.go", imports: []string{module + "/feed/client"}}, nil},
		{source{name: "server/server.go", imports: []string{module + "/feed/client"}}, []string{"imports " + module + "/feed/client"}},
		{source{name: "storage/sqlite/store.go", imports: []string{module + "/feed/client"}}, []string{"imports " + module + "/feed/client"}},
		{source{name: "cmd/rejoin/tail.go", imports: []string{module + "/feed/client/clienttest"}}, []string{"imports " + module + "/feed/client/clienttest"}},
		{source{name: "feed/client/follow.go", imports: []string{module + "/feed/client/clienttest"}}, []string{"imports " + module + "/feed/client/clienttest"}},
		{source{name: "feed/client/clienttest/script.go", imports: []string{"testing", module + "/feed/client"}}, []string{"imports " + module + "/feed/client"}},
		{source{name: "feed/feedtest/check.go", imports: []string{"testing", "github.com/google/go-cmp/cmp", module + "/feed"}}, nil},
		{source{name: "storage/sqlite/store.go", imports: []string{sqlite3, module + "/feed"}}, nil},
		{source{name: "storage/sqlite/store.go", imports: []string{module + "/storage/memory"}}, []string{"imports " + module + "/storage/memory"}},
		{source{name: "storage/sqlite/store.go", imports: []string{module + "/storage/storagetest"}}, []string{"imports " + module + "/storage/storagetest"}},
		{source{name: "cmd/rejoin/bench.go", imports: []string{module + "/storage/testserver"}}, []string{"imports " + module + "/storage/testserver"}},
		{source{name: "feed/feedtest/check.go", imports: []string{module + "/storage/testserver"}}, []string{"imports " + module + "/storage/testserver"}},
		{source{name: "storage/redis/client.go", imports: []string{module + "/storage/testserver"}}, []string{"imports " + module + "/storage/testserver"}},
		{source{name: "storage/testserver/redis.go", imports: []string{"os/exec", "github.com/jackc/pgx/v5"}, environment: []string{"Getenv"}}, nil},
		{source{name: "storage/testserver/redis.go", imports: []string{module + "/feed", module + "/storage/storagetest"}}, []string{"imports " + module + "/feed", "imports " + module + "/storage/storagetest"}},
		{source{name: "storage/memory/bus.go", imports: []string{prometheus, sqlite3}}, []string{"imports " + prometheus, "imports " + sqlite3}},
		{source{name: "web/embed.go", imports: []string{"embed", module + "/feed"}}, []string{"imports " + module + "/feed"}},
		{source{name: "internal/misc/misc.go"}, []string{"is in no room of the plan"}},
		{source{name: "feeds/feeds.go"}, []string{"is in no room of the plan"}},
	} {
		var want []string
		for _, w := range test.want {
			want = append(want, test.source.name+": "+w)
		}
		if diff := cmp.Diff(want, violations([]source{test.source})); diff != "" {
			t.Error(diff)
		}
	}
}

// TestSourcesAreRead proves that imports and calls are seen in real files.
func TestSourcesAreRead(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"feed/hub.go":        "package feed\nimport (\n\tsystem \"os\"\n\t_ \"embed\"\n)\nvar _ = system.Getenv(\"X\")\nvar look = system.LookupEnv\n",
		"feed/hub_linux.go":  "//go:build linux\npackage feed\nimport \"os\"\nfunc f() { os.Expand(\"\", nil); _ = os.Environ() }\n",
		"feed/hub_test.go":   "package feed\nimport \"os\"\nvar _ = os.Getenv\n",
		".hidden/x.go":       "not go",
		"feed/testdata/x.go": "not go",
		"web/embed.go":       "package web\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readSources(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []source{
		{"feed/hub.go", []string{"os", "embed"}, []string{"Getenv", "LookupEnv"}},
		{"feed/hub_linux.go", []string{"os"}, []string{"Environ"}},
		{name: "web/embed.go"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(source{})); diff != "" {
		t.Error(diff)
	}
}

// readSources reads all Go files below root but tests, for every system.
func readSources(root string) (sources []source, err error) {
	err = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		hidden := strings.HasPrefix(d.Name(), ".") && file != root
		switch {
		case err != nil:
			return err
		case d.IsDir() && (hidden || d.Name() == "testdata"):
			return fs.SkipDir
		case d.IsDir(), !strings.HasSuffix(file, ".go"), strings.HasSuffix(file, "_test.go"):
			return nil
		}
		name, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		s, err := readSource(file)
		s.name = filepath.ToSlash(name)
		sources = append(sources, s)
		return err
	})
	return sources, err
}

func readSource(file string) (s source, err error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return s, fmt.Errorf("parse %s: %w", file, err)
	}
	system := "os" // the name of the package in this file
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return s, err
		}
		s.imports = append(s.imports, imported)
		if imported == "os" && spec.Name != nil {
			system = spec.Name.Name
		}
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok {
			x, ok := selector.X.(*ast.Ident)
			if ok && x.Name == system && slices.Contains([]string{"Getenv", "LookupEnv", "Environ", "ExpandEnv"}, selector.Sel.Name) {
				s.environment = append(s.environment, selector.Sel.Name)
			}
		}
		return true
	})
	return s, nil
}
