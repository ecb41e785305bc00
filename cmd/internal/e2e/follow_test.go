package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"
	"github.com/rejoin/rejoin/storage/testserver"
	client "github.com/tmaxmax/go-sse"
)

// minCuts is how often each follower's connection has to be cut at least.
const minCuts = 10

// TestFollowALog is the main job: a real program's log grows, is piped into
// the server, and is followed by a browser, by curl and by our own command,
// each over connections that are cut at random bytes. Each must end up with
// the file, line by line.
func TestFollowALog(t *testing.T) {
	t.Parallel()
	binary := built(t, false)
	dir := t.TempDir()
	server := serve(t, binary, filepath.Join(dir, "main.db"), "REJOIN_SUBSCRIBE_RETRY=20ms")

	logFile := filepath.Join(dir, "some.log")
	followers := map[string]func() []string{}
	cutters := map[string]*testserver.Proxy{}
	for name, follow := range map[string]func(*testing.T, string) func() []string{
		"Chromium":    followWithChromium,
		"curl":        followWithCurl,
		"rejoin tail": func(t *testing.T, url string) func() []string { return followWithTail(t, binary, url) },
	} {
		cutters[name] = newCutter(t, server.url)
		followers[name] = follow(t, cutters[name].URL(server.url))
		cutShort(t, cutters[name], shortLived(cutters[name]))
	}
	pipe := exec.Command("sh", "-c", `tail -n +1 -F "$1" | "$2" publish --feed log --url "$3"`, "sh", logFile, binary, server.url)
	piped := launch(t, pipe)

	want := growLog(t, binary, logFile)
	for name, follower := range followers {
		restAfter(minCuts, cutters[name])
		got := awaitLines(follower, len(want))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-the log, +what it got): %s\n%s\n%s", name, diff, piped.log, server.log)
		}
		if cuts := cutters[name].Cuts(); cuts < minCuts {
			t.Errorf("%s was cut only %d times", name, cuts)
		} else {
			t.Logf("%s: %d lines, %d cuts", name, len(got), cuts)
		}
	}
}

// growLog has a server write its log of some hundred requests into path, with
// lines in between that a pipe could spoil, and returns all lines.
func growLog(t *testing.T, binary, path string) []string {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command(binary, "serve", "--listen", "127.0.0.1:0", "--store", "sqlite:"+filepath.Join(t.TempDir(), "logged.db"))
	cmd.Env = append(os.Environ(), "REJOIN_LOG_FORMAT=json", "REJOIN_LOG_ACCESS=true")
	cmd.Stderr = file
	logged := launch(t, cmd)
	url := ""
	for deadline := time.Now().Add(30 * time.Second); url == ""; {
		if time.Now().After(deadline) {
			t.Fatal("the logged server does not listen")
		}
		_, after, found := strings.Cut(readFile(t, path), `"url":"`)
		if before, _, whole := strings.Cut(after, `"`); found && whole {
			url = before
		}
		time.Sleep(10 * time.Millisecond) // until the log has grown
	}
	odd := []string{"", " ", "\ttab, then two spaces  ", "data: id: 7", ":", "ünïcödé 🚀 \u2028 line separator", strings.Repeat("long ", 2000), `{"json":true}`, "id: 99", "event: feed.gap"}
	for i := range 300 {
		if _, err := publish(http.DefaultClient, url, fmt.Sprintf("feed-%d", i%7), "x"); err != nil {
			t.Fatal(err)
		}
		if i%30 == 0 {
			fmt.Fprintln(file, odd[i/30])
		}
		time.Sleep(10 * time.Millisecond) // a log grows little by little
	}
	if err := logged.terminate(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(readFile(t, path), "\n"), "\n")
	if len(lines) < 300 {
		t.Fatalf("the log has %d lines", len(lines))
	}
	return lines
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// awaitLines waits until a follower has n lines, and then a little for a line
// too many.
func awaitLines(follower func() []string, n int) []string {
	for deadline := time.Now().Add(60 * time.Second); len(follower()) < n && time.Now().Before(deadline); {
		time.Sleep(20 * time.Millisecond) // until more has arrived
	}
	time.Sleep(100 * time.Millisecond) // for what should not come
	return follower()
}

func followWithTail(t *testing.T, binary, url string) func() []string {
	out := &lockedBuffer{}
	cmd := exec.Command(binary, "tail", "--feed", "log", "--from", "start", "--url", url)
	cmd.Stdout = out
	launch(t, cmd)
	return out.lines
}

// followWithCurl does what a shell script would: read until the connection is
// cut, then go on behind the last id that was read.
func followWithCurl(t *testing.T, url string) func() []string {
	lines := make(chan []string, 1)
	lines <- nil
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cursor := ""
		for ctx.Err() == nil {
			cmd := exec.CommandContext(ctx, "curl", "-sN", "-H", "Last-Event-ID: "+cursor, url+"/v1/feeds/log/events?from=start")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Error(err)
				return
			}
			if err := cmd.Start(); err != nil {
				t.Error(err)
				return
			}
			for e, err := range client.Read(out, nil) {
				if err != nil {
					t.Error(err)
				}
				cursor = e.LastEventID
				if e.Type == "" {
					lines <- append(<-lines, e.Data)
				}
			}
			_, _ = io.Copy(io.Discard, out)
			_ = cmd.Wait() // curl reports the cut
		}
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return func() []string {
		got := <-lines
		lines <- got
		return got
	}
}

// followWithChromium has a page follow the feed with the browser's own
// EventSource: one, for the whole test.
func followWithChromium(t *testing.T, url string) func() []string {
	ctx := browser(t)
	if err := chromedp.Do(ctx,
		chromedp.Navigate(url+"/healthz"),
		chromedp.Evaluate[chromedp.Void](`
			window.lines = [];
			window.source = new EventSource("/v1/feeds/log/events?from=start");
			source.onmessage = e => lines.push([e.lastEventId, e.data]);`),
	); err != nil {
		t.Fatal(err)
	}
	return func() []string {
		text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`JSON.stringify([source.readyState, lines])`))
		if err != nil {
			t.Fatal(err)
		}
		var state int
		var got [][2]string
		if err := json.Unmarshal([]byte(text), &[]any{&state, &got}); err != nil {
			t.Fatal(err)
		}
		if state == 2 {
			t.Error("the browser has given up")
		}
		lines := make([]string, len(got))
		for i, line := range got {
			if line[0] != fmt.Sprint(i+1) {
				t.Fatalf("event %d has the id %s in the browser", i+1, line[0])
			}
			lines[i] = line[1]
		}
		return lines
	}
}
