package pages

import (
	"encoding/json"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const root = "../../.."

// marks are the comments that may stand before a block, beside "run: TestName", which
// names the test that runs it, and "not run: " with a reason.
var marks = map[string]string{
	"run: serve":   "it starts a server, on which the blocks after it are run (TestDocsCommands)",
	"run: live":    "commands against a server (TestDocsCommands); numbers after it are the errors that they get",
	"run: program": "a program that runs against a server and ends (TestDocsPrograms)",
	"run: config":  "a configuration that rejoin check reads (TestDocsConfigurations)",
	"output":       "what the block before it prints; an … stands for anything",
}

// unmarked are the languages that need no mark, and why their blocks are not run.
var unmarked = map[string]string{
	"":          "output, and pictures",
	"json":      "data; its syntax is checked here",
	"jsx":       "needs a bundler",
	"swift":     "Debian has no Swift",
	"kotlin":    "Debian has no current Kotlin",
	"ruby":      "ActiveRecord is not among what the tests install",
	"php":       "Laravel is not among what the tests install",
	"caddyfile": "Caddy is not among what the tests install",
}

// saysSo matches how a page tells its readers that an example was not run.
var saysSo = regexp.MustCompile(`(?i)not run by the tests|tests do not run`)

var command = regexp.MustCompile(`(?m)^\s*(\$ )?(curl|rejoin|go run|make|docker|psql) `)

func read(t *testing.T) []Page {
	t.Helper()
	pages, err := Read(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 10 {
		t.Fatalf("found only %d pages", len(pages))
	}
	return pages
}

// TestBlocks demands that a test runs each block of code, or that the page gives the
// reason why none does.
func TestBlocks(t *testing.T) {
	tests := testNames(t)
	for _, page := range read(t) {
		for i, b := range page.Blocks {
			kind, _, _ := strings.Cut(b.Mark, ",")
			name, byTest := strings.CutPrefix(b.Mark, "run: ")
			reason, isUnmarked := unmarked[b.Lang]
			switch {
			case b.Mark == "output" && i > 0 && strings.HasPrefix(page.Blocks[i-1].Mark, "run: "):
			case b.Mark != "output" && marks[kind] != "", byTest && slices.Contains(tests, name):
			case strings.HasPrefix(b.Mark, "not run: "):
			case b.Mark != "":
				t.Errorf("%s: the mark %q is neither one of %q nor a test", b, b.Mark, slices.Sorted(maps.Keys(marks)))
			case !isUnmarked:
				t.Errorf("%s: a block of %q needs a comment before it, such as %q", b, b.Lang, "<!-- run: live -->")
			case b.Lang == "" && command.MatchString(b.Text):
				t.Errorf("%s: commands need the language sh and a comment that says how they are run", b)
			case b.Lang == "json" && !json.Valid([]byte(b.Text)):
				t.Errorf("%s: this is not JSON", b)
			case b.Lang != "" && b.Lang != "json" && !saysSo.MatchString(around(t, b)):
				t.Errorf("%s: the page has to say that this is not run by the tests: %s", b, reason)
			}
		}
	}
}

// around returns a block and the five lines before it.
func around(t *testing.T, b Block) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, b.Page))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	return strings.Join(lines[max(0, b.Line-7):b.Line], "\n")
}

// testNames returns the names of all tests of the module.
func testNames(t *testing.T) (names []string) {
	t.Helper()
	test := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for name, text := range tracked(t) {
		if strings.HasSuffix(name, "_test.go") {
			for _, match := range test.FindAllStringSubmatch(text, -1) {
				names = append(names, match[1])
			}
		}
	}
	return names
}

// TestLinks follows every link to a place of this repository, and looks for the heading
// that it names.
func TestLinks(t *testing.T) {
	pages := make(map[string]Page)
	for _, page := range read(t) {
		pages[page.Name] = page
	}
	for _, page := range pages {
		for _, l := range page.Links {
			u, err := url.Parse(l.Target)
			if err != nil {
				t.Errorf("%s:%d: %v", page.Name, l.Line, err)
				continue
			}
			if u.Scheme != "" || u.Host != "" {
				continue // elsewhere; tests have no internet
			}
			target := page.Name
			if u.Path != "" {
				target = path.Join(path.Dir(page.Name), u.Path)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s:%d: %s leads nowhere", page.Name, l.Line, l.Target)
			} else if u.Fragment != "" && !slices.Contains(pages[target].Anchors, u.Fragment) {
				t.Errorf("%s:%d: %s has no heading #%s; it has %q", page.Name, l.Line, target, u.Fragment, pages[target].Anchors)
			}
		}
	}
	mention := regexp.MustCompile(`\bdocs/([a-z-]+\.md)(?:#([\w-]+))?`)
	for name, text := range tracked(t) {
		for _, match := range mention.FindAllStringSubmatch(text, -1) {
			page, ok := pages["docs/"+match[1]]
			if !ok || match[2] != "" && !slices.Contains(page.Anchors, match[2]) {
				t.Errorf("%s mentions %s, which does not exist", name, match[0])
			}
		}
	}
}

// TestMap demands that README.md leads to the map of the documentation and to the FAQ, and
// the map to every page.
func TestMap(t *testing.T) {
	pages := read(t)
	linked := make(map[string]bool)
	for _, page := range pages {
		if page.Name == "README.md" || page.Name == "docs/README.md" {
			for _, l := range page.Links {
				target, _, _ := strings.Cut(l.Target, "#")
				linked[page.Name+" "+path.Join(path.Dir(page.Name), target)] = true
			}
		}
	}
	for _, name := range []string{"docs/README.md", "docs/faq.md"} {
		if !linked["README.md "+name] {
			t.Errorf("README.md does not lead to %s", name)
		}
	}
	for _, page := range pages {
		if path.Dir(page.Name) == "docs" && page.Name != "docs/README.md" && !linked["docs/README.md "+page.Name] {
			t.Errorf("docs/README.md does not lead to %s", page.Name)
		}
	}
}

// TestFAQ demands that a reader of README.md has each answer of the FAQ after a click, and
// the rest of it after one more: no answer leads to two pages. TestMap has the first
// click, and TestLinks looks for the headings.
func TestFAQ(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/faq.md"))
	if err != nil {
		t.Fatal(err)
	}
	questions := 0
	for _, paragraph := range strings.Split(string(text), "\n\n") {
		question, _, _ := strings.Cut(strings.TrimPrefix(paragraph, "**"), "**")
		answer, err := Parse("docs/faq.md", paragraph)
		if err != nil {
			t.Fatal(err)
		}
		targets := make(map[string]bool)
		for _, l := range answer.Links {
			target, _, _ := strings.Cut(l.Target, "#")
			targets[target] = true
		}
		isQuestion := strings.HasPrefix(paragraph, "**")
		if isQuestion {
			questions++
		}
		if len(targets) > 1 || len(targets) > 0 && !isQuestion {
			t.Errorf("%q leads to %q", question, slices.Sorted(maps.Keys(targets)))
		}
	}
	if questions < 21 {
		t.Errorf("the FAQ has %d questions", questions)
	}
}

// TestParse has what Parse has to understand.
func TestParse(t *testing.T) {
	page, err := Parse("docs/X.md", strings.Join([]string{
		"# The `503` page: a *title*, twice", "", "See [this", "page](y.md#z) and `[not](this)`.", "<img src=\"p.png\">", "",
		"<!-- run: live -->", "```sh", "# no heading", "curl x # [no](link)", "```", "",
		"- in a list:", "", "  ```", "  a", "    b", "  ```", "", "<!-- lost -->", "text", "```json", "{}", "```",
		"## Twice", "## [Twice](y.md)", "", "[x]: z.md",
	}, "\n"))
	want := Page{
		Name:    "docs/X.md",
		Anchors: []string{"the-503-page-a-title-twice", "twice", "twice-1"},
		Links:   []Link{{4, "y.md#z"}, {5, "p.png"}, {26, "y.md"}, {28, "z.md"}},
		Blocks: []Block{
			{"docs/X.md", 9, "sh", "run: live", "# no heading\ncurl x # [no](link)\n"},
			{"docs/X.md", 16, "", "", "a\n  b\n"},
			{"docs/X.md", 23, "json", "", "{}\n"},
		},
	}
	if diff := cmp.Diff(want, page); diff != "" || err != nil {
		t.Errorf("(-want, +got): %s %v", diff, err)
	}
	for _, text := range []string{"```sh\nx\n", "```sh run\nx\n```\n"} {
		if page, err := Parse("x.md", text); err == nil {
			t.Errorf("%q is read as %+v", text, page)
		}
	}
}

// tracked returns the text files of the repository but its pages, by name.
func tracked(t *testing.T) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (slices.Contains([]string{".git", "bin", "node_modules"}, d.Name())):
			return fs.SkipDir
		case d.IsDir() || !slices.Contains([]string{".go", ".yaml", ".yml", ".mjs", ".js", ".html", ".json"}, path.Ext(name)):
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, name))
		files[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
