package e2e

import (
	"context"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPriorKnowledge: clients that know that the server speaks HTTP/2, as some proxies do,
// get streams and answers without TLS. Others go on with HTTP/1.1 at the same address.
func TestPriorKnowledge(t *testing.T) {
	t.Parallel()
	p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"), "REJOIN_SERVER_HTTP2=engine")
	if _, err := publish(http.DefaultClient, p.url, "chat", "hello"); err != nil {
		t.Fatal(err)
	}
	url := p.url + "/v1/feeds/chat/events?from=start"
	for _, client := range []struct {
		name, parts string
		args        []string
	}{
		{"curl", "curl", []string{"--silent", "--no-buffer", "--http2-prior-knowledge"}},
		{"nghttp", "nghttp2-client", nil},
	} {
		t.Run(client.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath(client.name); err != nil {
				t.Fatalf("this test needs %s: apt-get install %s (%v)", client.name, client.parts, err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			// It writes to a pipe what it has, not only full buffers.
			cmd := exec.CommandContext(ctx, "stdbuf", append(append([]string{"-o0", client.name}, client.args...), url)...)
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []byte
			for b := make([]byte, 4096); !strings.Contains(string(got), "data: hello\nid: 1\n"); {
				n, err := out.Read(b)
				if err != nil {
					t.Fatalf("%v after %q", err, got)
				}
				got = append(got, b[:n]...)
			}
			cancel()
			_ = cmd.Wait() // it was killed
		})
	}
}
