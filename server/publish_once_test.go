package server_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server"
)

// TestSameKeyAtOnce: of a hundred equal requests with the same key at the same time,
// one publishes, and all get the same answer.
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

// TestConditionAtOnce: of many requests to publish after the same event, one succeeds.
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

// failing is a store whose appends fail in one way.
type failing struct {
	feed.Store
	err error
}

func (s failing) Append(context.Context, []feed.Batch) ([]feed.Result, error) { return nil, s.err }

// TestStoredMember: a 503 has a member that shows whether the events were stored.
func TestStoredMember(t *testing.T) {
	for stored, err := range map[string]error{"no": feed.ErrUnavailable, "unknown": feed.ErrUncertain} {
		n := startOn(t, failing{newKeeper(t), err}, server.Options{})
		for _, path := range []string{events, batches, "/v1/feeds/chat/close"} {
			r, body := n.do(http.MethodPost, path, map[string]string{"Content-Type": "application/x-ndjson"}, `{"feed":"chat","data":1}`)
			wantProblem(t, r, body, http.StatusServiceUnavailable, "stored")
			if !strings.Contains(body, `"stored":"`+stored+`"`) || r.Header.Get("Retry-After") == "" {
				t.Errorf("%s: %v %s", path, r.Header, body)
			}
		}
		n.publisher.Close()
		r, body := n.do(http.MethodPost, events, nil, "x")
		wantProblem(t, r, body, http.StatusServiceUnavailable, "stopping")
		if !strings.Contains(body, `"stored":"no"`) {
			t.Error(body)
		}
		if _, body := n.do(http.MethodPost, events+"?type=open", nil, "x"); strings.Contains(body, `"stored"`) {
			t.Errorf("a permanent refusal has the member stored: %s", body)
		}
	}
	http1 := httptest.NewServer(server.Waiting(server.Options{}))
	defer http1.Close()
	n := &node{t: t, url: http1.URL}
	if _, body := n.do(http.MethodPost, events, nil, "x"); !strings.Contains(body, `"stored":"no"`) {
		t.Error(body)
	}
	if _, body := n.do(http.MethodGet, events, nil, ""); strings.Contains(body, `"stored"`) {
		t.Error(body)
	}
}

// TestEphemeralReaches: connected subscribers get an ephemeral event as it was sent.
func TestEphemeralReaches(t *testing.T) {
	n := startOn(t, newKeeper(t), server.Options{})
	sub, err := n.hub.Subscribe(t.Context(), "chat", feed.From{})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	n.post(exchange{events + "?ephemeral=true", "Content-Type: application/json\nEvent-Type: typing", `{"who":"ann"}`, 202, "", ""})
	d, err := sub.Next(within(t, prompt), nil)
	if err != nil || !d.Ephemeral || len(d.Events()) != 1 {
		t.Fatalf("%+v, %v", d, err)
	}
	if e := d.Events()[0]; e.ID != 0 || e.Type != "typing" || !e.JSON || e.Data != `{"who":"ann"}` {
		t.Errorf("%+v", e)
	}
}
