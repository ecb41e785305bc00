package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/pages"
)

// The examples of README.md and docs are run as a reader would run them. A comment
// before each names the way (cmd/internal/pages checks that there is one).

// documentation returns the pages with their blocks.
func documentation(t *testing.T) []pages.Page {
	t.Helper()
	read, err := pages.Read(root)
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// reader is somebody who follows a page: with a directory, a server, and the commands
// curl and rejoin.
type reader struct {
	t      *testing.T
	binary string
	dir    string // in which the commands run, and that holds the tools
	server *process
}

// readerTools are commands that do what the real ones do, against the reader's server. A
// stream has no end: it is read until DOCS_LAST has arrived, which is what the page shows
// last, or until anything has.
var readerTools = map[string]string{
	"curl": `#!/bin/sh
case " $* " in *" -N "*|*" -sN "*)
	"$DOCS_CURL" --max-time 60 -D "$DOCS_DIR/head" -o "$DOCS_DIR/stream" --silent --show-error "$@" & pid=$!
	until grep -qF -e "$DOCS_LAST" "$DOCS_DIR/stream" 2>/dev/null || ! kill -0 $pid 2>/dev/null; do sleep 0.02; done
	sleep 0.1; kill $pid 2>/dev/null; wait $pid 2>/dev/null
	cat "$DOCS_DIR/stream"; sed -n 's|^HTTP/[0-9.]* \([0-9]*\).*|status: \1|p' "$DOCS_DIR/head" >&2
	rm -f "$DOCS_DIR/head" "$DOCS_DIR/stream"; exit 0 ;;
esac
exec "$DOCS_CURL" --silent --show-error -w '%{stderr}status: %{http_code}\n' "$@"
`,
	"rejoin": `#!/bin/sh
case $1 in
serve) export -p | grep ' REJOIN_AUTH' > "$DOCS_DIR/environment"; exec "$DOCS_REJOIN" "$@" ;;
check|migrate) REJOIN_STORE_URL=sqlite:other.db exec "$DOCS_REJOIN" "$@" ;;
tail) "$DOCS_REJOIN" "$@" --url "$DOCS_URL" > "$DOCS_DIR/tail" & pid=$!
	for i in $(seq 1500); do if grep -qF -e "$DOCS_LAST" "$DOCS_DIR/tail" || ! kill -0 $pid 2>/dev/null; then break; fi; sleep 0.02; done
	sleep 0.1; kill $pid 2>/dev/null; wait $pid 2>/dev/null || [ -s "$DOCS_DIR/tail" ]; cat "$DOCS_DIR/tail" ;;
publish|feeds|feed|close|trim|delete|health) exec "$DOCS_REJOIN" "$@" --url "$DOCS_URL" ;;
*) exec "$DOCS_REJOIN" "$@" ;;
esac
`,
	// What a page calls the program that makes events.
	"producer": "#!/bin/sh\nprintf 'event: token\\ndata: Hel\\n\\ndata: lo\\n\\n'\n",
	"some.log": "one line\n",
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{t: t, binary: built(t, false), dir: t.TempDir()}
	for name, text := range readerTools {
		writeFile(t, filepath.Join(r.dir, name), text)
		if err := os.Chmod(filepath.Join(r.dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	writeFile(t, filepath.Join(r.dir, "config.yaml"), ofRoot(t, "config.yaml"))
	return r
}

// command returns the command that runs a block as a reader does.
func (r *reader) command(b pages.Block) *exec.Cmd {
	r.t.Helper()
	curl, err := exec.LookPath("curl")
	if err != nil {
		r.t.Fatalf("this test needs curl: apt-get install curl (%v)", err)
	}
	text := strings.ReplaceAll(b.Text, "go run ./cmd/rejoin", "rejoin")
	url := ""
	if r.server != nil {
		url = r.server.url
		text = strings.ReplaceAll(text, "http://127.0.0.1:8080", url)
	}
	cmd := exec.Command("sh", "-ec", `if [ -e environment ]; then . ./environment; fi`+"\n"+text)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "PATH="+r.dir+":"+os.Getenv("PATH"), "DOCS_DIR="+r.dir, "DOCS_CURL="+curl, "DOCS_REJOIN="+r.binary,
		"DOCS_URL="+url, "REJOIN_LISTEN=127.0.0.1:0", "REJOIN_LOG_FORMAT=json", "HOME="+r.dir)
	return cmd
}

// follow runs the blocks of a page in their order.
func (r *reader) follow(page pages.Page) {
	r.t.Helper()
	var printed string // by the block before
	for i, b := range page.Blocks {
		kind, allowed, _ := strings.Cut(b.Mark, ",")
		switch kind {
		case "run: serve":
			if r.server != nil {
				r.server.kill()
			}
			r.server = launch(r.t, r.command(b))
			r.server.url = r.server.listening()
			continue
		case "run: live":
			last := ""
			if i+1 < len(page.Blocks) && page.Blocks[i+1].Mark == "output" {
				shown := strings.TrimSpace(page.Blocks[i+1].Text)
				last = shown[strings.LastIndex(shown, "\n")+1:]
			}
			printed = r.runCommands(b, strings.Fields(allowed), last)
		case "output":
			if printed != "" {
				r.checkOutput(b, printed)
			}
		}
		if kind != "run: live" {
			printed = ""
		}
	}
}

var statusLine = regexp.MustCompile(`(?m)^status: (\d{3})$`)

// runCommands runs one block and returns what it prints, which ends with last. Only the
// allowed statuses may be those of errors.
func (r *reader) runCommands(b pages.Block, allowed []string, last string) string {
	r.t.Helper()
	if r.server == nil {
		r.server = serve(r.t, r.binary, filepath.Join(r.dir, "page.db"))
		for range 5 { // such a page is about a feed that exists
			if _, err := publish(http.DefaultClient, r.server.url, "chat", "hello"); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	cmd := r.command(b)
	cmd.Env = append(cmd.Env, "DOCS_LAST="+last)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		r.t.Errorf("%s: %v\n%s%s%s", b, err, b.Text, stdout.String(), stderr.String())
	}
	for _, match := range statusLine.FindAllStringSubmatch(stderr.String(), -1) {
		if match[1] >= "400" != slices.Contains(allowed, match[1]) {
			r.t.Errorf("%s: the status %s, and these errors are expected: %q\n%s%s", b, match[1], allowed, b.Text, stdout.String())
		}
	}
	return stdout.String()
}

var (
	someTime = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`)
	someWait = regexp.MustCompile(`retry: \d+`)
)

// checkOutput compares what a page shows with what was printed. An … stands for anything,
// and a time or a retry for any other.
func (r *reader) checkOutput(b pages.Block, printed string) {
	r.t.Helper()
	tidy := func(s string) string {
		s = strings.ReplaceAll(s, "\r", "")
		return strings.TrimSpace(someWait.ReplaceAllString(someTime.ReplaceAllString(s, "TIME"), "retry: N"))
	}
	var parts []string
	for part := range strings.SplitSeq(tidy(b.Text), "…") {
		parts = append(parts, regexp.QuoteMeta(part))
	}
	if match, err := regexp.MatchString("^(?s:"+strings.Join(parts, ".*")+")$", tidy(printed)); err != nil || !match {
		r.t.Errorf("%s: the page shows\n%s\nand the commands print\n%s", b, b.Text, printed)
	}
}

// TestDocsCommands follows each page in a terminal.
func TestDocsCommands(t *testing.T) {
	t.Parallel()
	for _, page := range documentation(t) {
		if !slices.ContainsFunc(page.Blocks, func(b pages.Block) bool {
			return strings.HasPrefix(b.Mark, "run: live") || b.Mark == "run: serve"
		}) {
			continue
		}
		t.Run(page.Name, func(t *testing.T) {
			t.Parallel()
			newReader(t).follow(page)
		})
	}
}

// TestDocsPrograms runs the programs of the pages, each against a feed of its own server.
func TestDocsPrograms(t *testing.T) {
	t.Parallel()
	interpreters := map[string]string{"go": "", "js": "node", "python": "python3"}
	endings := map[string]string{"go": ".go", "js": ".mjs", "python": ".py"}
	r := newReader(t)
	r.server = serve(t, r.binary, filepath.Join(r.dir, "page.db"))
	dir := t.TempDir()
	for _, page := range documentation(t) {
		for i, b := range page.Blocks {
			if b.Mark != "run: program" {
				continue
			}
			interpreter, ok := interpreters[b.Lang]
			if !ok {
				t.Errorf("%s: how does one run %q?", b, b.Lang)
				continue
			}
			file := filepath.Join(dir, fmt.Sprintf("%s-%d%s", filepath.Base(page.Name), b.Line, endings[b.Lang]))
			writeFile(t, file, b.Text)
			cmd := exec.Command(interpreter, file)
			if b.Lang == "go" { // it is built in this module, and runs elsewhere
				if out, err := exec.Command("go", "build", "-o", file+".out", file).CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", b, err, out)
					continue
				}
				cmd = exec.Command(file + ".out")
			}
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "REJOIN_URL="+r.server.url)
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("%s: %v\n%s%s", b, err, out, stderr.String())
			}
			if i+1 < len(page.Blocks) && page.Blocks[i+1].Mark == "output" {
				r.checkOutput(page.Blocks[i+1], string(out))
			}
		}
	}
}

// TestDocsConfigurations has rejoin check read the configurations of the pages.
func TestDocsConfigurations(t *testing.T) {
	t.Parallel()
	for _, page := range documentation(t) {
		for _, b := range page.Blocks {
			if b.Mark != "run: config" {
				continue
			}
			lines, _ := check(t, 4096, b.Text)
			if !slices.ContainsFunc(lines, func(l checkLine) bool { return l.Look == "configuration" && l.Status == "ok" }) {
				t.Errorf("%s: %+v", b, lines)
			}
		}
	}
}
