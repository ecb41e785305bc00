package e2e

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// framed returns the one block of the pages in a language that a test is to run, within
// the file of testdata that has what is around it.
func framed(t *testing.T, test, lang, frame string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", frame))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, page := range documentation(t) {
		for _, b := range page.Blocks {
			if b.Mark == "run: "+test && b.Lang == lang {
				found = append(found, b.Text)
			}
		}
	}
	if len(found) != 1 || strings.Count(string(text), "EXAMPLE\n") != 1 {
		t.Fatalf("%d examples in %s for %s", len(found), lang, frame)
	}
	return strings.Replace(string(text), "EXAMPLE\n", "the example:\n"+found[0], 1)
}

// rubyCommand returns the command that runs a program with a part of Rails.
func rubyCommand(t *testing.T, pkg, program string, args ...string) *exec.Cmd {
	t.Helper()
	const interpreter = "/usr/bin/ruby" // for which Debian's packages are
	if exec.Command(interpreter, "-e", "gem '"+strings.TrimPrefix(pkg, "ruby-")+"'").Run() != nil {
		t.Fatalf("this test needs a part of Rails: apt-get install ruby %s", pkg)
	}
	file := filepath.Join(t.TempDir(), "program.rb")
	writeFile(t, file, program)
	return exec.Command(interpreter, append([]string{"-W0", file}, args...)...)
}

// TestForwardExamples: a user of Express and one of Rails follow their own feed and
// nothing else, until they log out.
func TestForwardExamples(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]func(t *testing.T, port string) *exec.Cmd{
		"Express": func(t *testing.T, port string) *exec.Cmd {
			file := filepath.Join(nodeDir(t), "express.mjs") // beside what it imports
			writeFile(t, file, framed(t, "TestForwardExamples", "js", "forward/express.mjs"))
			return nodeCommand(t, file, port)
		},
		"Rails": func(t *testing.T, port string) *exec.Cmd {
			return rubyCommand(t, "ruby-actionpack", framed(t, "TestForwardExamples", "ruby", "forward/rails.rb"), port)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			app, at := freeAddress(t), freeAddress(t)
			_, port, err := net.SplitHostPort(app)
			if err != nil {
				t.Fatal(err)
			}
			awaitAnswer(t, launch(t, command(t, port)), "http://"+app+"/rejoin")
			serveAt(t, built(t, false), at, "sqlite:"+filepath.Join(t.TempDir(), "rejoin.db"), "memory",
				"REJOIN_AUTH_MODE=forward", "REJOIN_AUTH_FORWARD_URL=http://"+app+"/rejoin",
				"REJOIN_AUTH_FORWARD_TIMEOUT=30s", "REJOIN_AUTH_FORWARD_RECHECK=1s")
			useForwardExample(t, "http://"+app, "http://"+at)
		})
	}
}

func useForwardExample(t *testing.T, app, rejoin string) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	user := &http.Client{Jar: jar}
	do := func(client *http.Client, request string) *http.Response {
		t.Helper()
		method, url, _ := strings.Cut(request, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	const own = "/v1/feeds/user:7/events"
	if got := do(http.DefaultClient, "GET "+rejoin+own).StatusCode; got != http.StatusUnauthorized {
		t.Errorf("without a session: %d", got)
	}
	do(user, "GET "+app+"/login/7")
	stream := do(user, "GET "+rejoin+own)
	for _, request := range []string{
		"GET /v1/feeds/user:8/events", "GET /v1/events?feed=user:7,user:8", "POST " + own, "GET /v1/feeds",
	} {
		if got := do(user, strings.Replace(request, " ", " "+rejoin, 1)).StatusCode; got != http.StatusForbidden {
			t.Errorf("%s: %d", request, got)
		}
	}
	do(user, "GET "+app+"/logout")
	text, err := io.ReadAll(stream.Body) // the server asks again every second
	if err != nil || stream.StatusCode != http.StatusOK || !bytes.Contains(text, []byte(`{"reason":"revoked"}`)) {
		t.Errorf("after the logout, the stream ends with %v: %s, %q", err, stream.Status, text)
	}
	if got := do(user, "GET "+rejoin+own).StatusCode; got != http.StatusUnauthorized {
		t.Errorf("after the logout: %d", got)
	}
}

// TestDocsRailsJob runs the job of docs/recipes.md: what it stores, it stores once, and it
// is repeated if the server is away.
func TestDocsRailsJob(t *testing.T) {
	t.Parallel()
	node := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	job := rubyCommand(t, "ruby-activejob", framed(t, "TestDocsRailsJob", "ruby", "job.rb"))
	job.Env = append(os.Environ(), "REJOIN_URL="+node.url)
	out, err := job.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte(`"status":400`)) {
		t.Fatalf("%v\n%s", err, out)
	}
	_, stream := openStream(t, node.url+"/v1/feeds/orders/events?from=start")
	for _, line := range []string{"event: order.paid", `data: {"order":7}`, "id: 1", "event: order.paid", `data: {"order":8}`, "id: 2"} {
		readUntil(t, stream, line)
	}
}
