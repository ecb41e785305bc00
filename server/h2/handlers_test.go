package h2

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"
)

// TestHandlers: handlers that block hold nobody up, however many there are, and their
// goroutines end.
func TestHandlers(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
	})
	release := make(chan struct{})
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/free" {
			<-release
		}
		fmt.Fprint(w, r.URL.Path)
	})
	c := w.connect()
	var blocked []uint32
	for i := range 50 {
		blocked = append(blocked, c.request(fmt.Sprint("/blocked/", i), true))
	}
	for range 50 {
		if got := c.body(c.request("/free", true), 0); got != "/free" {
			t.Fatalf("got %q", got)
		}
	}
	close(release)
	got := make(map[string]bool)
	for range blocked {
		for {
			f := c.next()
			if f == nil {
				t.Fatalf("the connection ended after %d answers", len(got))
			}
			if data, ok := f.(interface{ Data() []byte }); ok && len(data.Data()) > 0 {
				got[string(data.Data())] = true
				break
			}
		}
	}
	if len(got) != len(blocked) {
		t.Errorf("%d of %d answers", len(got), len(blocked))
	}
}
