package server_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/rejoin/rejoin/server"
)

// TestSameKeyAtOnce: of a hundred who publish the same with the same key at the
// same time, one does, and all hear the same.
func TestSameKeyAtOnce(t *testing.T) { eachStore(t, testSameKeyAtOnce) }

func testSameKeyAtOnce(t *testing.T) {
	const clients = 100
	for _, test := range []struct{ name, path, header, body string }{
		{"an event", events, "", "x"},
		{"a batch", events, ndjson, `{"data":"a"}` + "\n" + `{"data":"b"}`},
		{"a batch for many", batches, ndjson, `{"feed":"chat","data":"a"}` + "\n" + `{"feed":"news","data":"b"}`},
		{"an event that closes", events + "?close=true", "", "x"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := startOn(t, newKeeper(t), server.Options{})
			var mu sync.Mutex
			answers := make(map[string]int)
			replayed := 0
			begin := make(chan struct{})
			var publishing sync.WaitGroup
			for range clients {
				publishing.Go(func() {
					r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+test.path, strings.NewReader(test.body))
					if err != nil {
						t.Error(err)
						return
					}
					addHeader(r.Header, test.header+"\n"+key)
					<-begin
					resp, body, err := roundTrip(r)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					answers[strings.Join([]string{resp.Status, resp.Header.Get("Location"), resp.Header.Get("ETag"), body}, "\n")]++
					if resp.Header.Get("Idempotency-Replayed") == "true" {
						replayed++
					}
				})
			}
			close(begin)
			publishing.Wait()
			want := len(strings.Split(test.body, "\n"))
			if got := len(n.stored("chat")) + len(n.stored("news")); got != want || replayed != clients-1 || len(answers) != 1 {
				t.Errorf("%d events, %d replayed, answers %v", got, replayed, answers)
			}
			for answer := range answers {
				if !strings.HasPrefix(answer, "201 ") {
					t.Error(answer)
				}
			}
		})
	}
}

// TestConditionAtOnce: of many who publish behind the same event, one does.
func TestConditionAtOnce(t *testing.T) {
	n := startOn(t, newKeeper(t), server.Options{})
	var mu sync.Mutex
	statuses := make(map[int]int)
	var publishing sync.WaitGroup
	for range 50 {
		publishing.Go(func() {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.url+events, strings.NewReader("x"))
			if err != nil {
				t.Error(err)
				return
			}
			r.Header.Set("If-Match", `"0"`)
			resp, _, err := roundTrip(r)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			statuses[resp.StatusCode]++
		})
	}
	publishing.Wait()
	if statuses[201] != 1 || statuses[412] != 49 || len(n.stored("chat")) != 1 {
		t.Errorf("%v, %d events", statuses, len(n.stored("chat")))
	}
}
