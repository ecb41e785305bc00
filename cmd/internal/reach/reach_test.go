package reach

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/client/clienttest"
)

// newClient returns a client that reaches the server of the network, whatever the address.
func newClient(t *testing.T, network *clienttest.Network, address string) *client.Client {
	t.Helper()
	transport := client.NewTransport()
	transport.DialContext = network.Dial
	t.Cleanup(transport.CloseIdleConnections)
	c, err := client.New(address, client.Options{Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAny(t *testing.T) {
	unless := func(host string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Host == host {
				clienttest.Hangs(w, r)
				return
			}
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	for _, test := range []struct {
		name    string
		handler http.HandlerFunc
		refused int32 // so many connections at first
		took    time.Duration
		err     string
	}{
		{"at once, whatever the answer is", unless(""), 0, 0, ""},
		{"one of two is enough", unless("one"), 0, 0, ""},
		{"one that is just starting", unless(""), 8, 800 * time.Millisecond, ""},
		{"none", unless(""), 1000, patience, "no server answers at http://u:xxxxx@one (connection refused), nor at http://two (connection refused)"},
		{"silence", clienttest.Hangs, 0, patience, "no server answers at http://u:xxxxx@one (no answer within 3s), nor at http://two (no answer within 3s)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				network := clienttest.Serve(t, test.handler)
				network.Refuse.Store(test.refused)
				both := []*client.Client{newClient(t, network, "http://u:secret@one"), newClient(t, network, "http://two")}
				began := time.Now()
				err := Any(t.Context(), both)
				if took := time.Since(began); took != test.took {
					t.Errorf("it took %v, want %v", took, test.took)
				}
				got := ""
				if err != nil {
					got = err.Error()
				}
				// Which of them is silent first is a matter of luck.
				if swapped := strings.NewReplacer("u:xxxxx@one", "two", "two", "u:xxxxx@one").Replace(got); got != test.err && swapped != test.err {
					t.Errorf("%q, want %q", got, test.err)
				}
			})
		})
	}
}
