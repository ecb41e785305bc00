package e2e

import (
	"bytes"
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

	"github.com/rejoin/rejoin/storage/testserver"
)

// TestPublishStreamCut: rejoin publish --stream stores each line once and in order,
// however often its connection is cut, and whatever becomes of the answers.
func TestPublishStreamCut(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"))
	for _, kind := range []struct{ name, line, data string }{
		{"lines", "%d\n", "%d"},
		{"sse", "event: n\ndata: %d\n\n", "%d"},
	} {
		proxy := newCutter(t, p.url)
		cmd := exec.Command(built(t, false), "publish", "--feed", kind.name, "--stream="+kind.name, "--close", "--url", "http://"+proxy.Addr())
		cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=10")
		to, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		publishing := launch(t, cmd)
		const events = 300
		for i := range events {
			if _, err := fmt.Fprintf(to, kind.line, i); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Millisecond)
			if i%100 == 50 {
				proxy.Cut([]testserver.End{testserver.Reset, testserver.Close, testserver.Vanish}[i/100])
			}
		}
		to.Close()
		select {
		case <-publishing.done:
		case <-time.After(time.Minute):
			t.Fatalf("%s: it does not end: %s", kind.name, stderr.String())
		}
		if code := cmd.ProcessState.ExitCode(); code != 0 || !strings.Contains(stderr.String(), "published 300 events to "+kind.name+", ids 1 to 300") || !strings.Contains(stderr.String(), "the feed is closed") {
			t.Errorf("%s: exit %d, %s", kind.name, code, stderr.String())
		}
		r, err := http.NewRequest("GET", p.url+"/v1/feeds/"+kind.name+"/events?limit=1000", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "application/json")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		var page struct {
			Closed bool
			Events []struct{ Data string }
		}
		if err != nil || json.Unmarshal(body, &page) != nil || len(page.Events) != events || !page.Closed {
			var got []string
			for _, e := range page.Events {
				got = append(got, e.Data)
			}
			t.Fatalf("%s: %d events, closed %t (%v): %q", kind.name, len(page.Events), page.Closed, err, got)
		}
		for i, e := range page.Events {
			if e.Data != fmt.Sprintf(kind.data, i) {
				t.Fatalf("%s: event %d is %q", kind.name, i+1, e.Data)
			}
		}
	}
}
