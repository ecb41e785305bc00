package e2e

import (
	"bufio"
	"net/http"
	"path/filepath"
	"testing"
)

// TestLimitsOfSubscribers: a limit that is configured and does not reach the
// server protects nobody.
func TestLimitsOfSubscribers(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		limit  string
		status int
	}{
		{"REJOIN_LIMITS_SUBSCRIBERS=1", http.StatusServiceUnavailable},
		{"REJOIN_LIMITS_SUBSCRIBERS_PER_ADDRESS=1", http.StatusTooManyRequests},
	} {
		p := serve(t, built(t, false), filepath.Join(t.TempDir(), "rejoin.db"), test.limit,
			"REJOIN_LIMITS_FEEDS_PER_SUBSCRIPTION=2", "REJOIN_ADMIN_LISTEN=127.0.0.1:0")
		get := func(path string) *http.Response {
			t.Helper()
			resp, err := http.Get(p.url + path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { resp.Body.Close() })
			return resp
		}
		if resp := get("/v1/events?feed=a,b,c"); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("three feeds: %s", resp.Status)
		}
		stream := bufio.NewReader(get("/v1/events?feed=a,b").Body)
		if resp := get("/v1/events?feed=a,b"); resp.StatusCode != test.status {
			t.Errorf("%s: %s", test.limit, resp.Status)
		}
		for _, want := range []string{"id: a=1,b=0\n", "id: a=2,b=0\n"} { // the second shows that the first was counted
			if _, err := publish(http.DefaultClient, p.url, "a", "x"); err != nil {
				t.Fatal(err)
			}
			for line := ""; line != want; {
				var err error
				if line, err = stream.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
		}
		if shed, delivered := p.metric("rejoin_shed_total"), p.metric("rejoin_delivery_seconds_count"); shed != 1 || delivered < 1 || delivered > 2 {
			t.Errorf("%v shed, %v delivered", shed, delivered)
		}
	}
}
