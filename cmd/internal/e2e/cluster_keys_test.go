package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/rejoin/rejoin/feed"
)

// TestClusterKeyAtOnce has a hundred publishers use one key at the same moment,
// on two nodes: one of them stores, and all get the same answer.
func TestClusterKeyAtOnce(t *testing.T) {
	t.Parallel()
	onEachBus(t, testKeyAtOnce)
}

func testKeyAtOnce(t *testing.T, c *cluster) {
	const publishers, rounds = 100, 3
	c.start(2)
	var batch strings.Builder
	feeds := []string{"a", "b", "c", "d", "e"}
	for _, name := range append(feeds, feeds...) {
		fmt.Fprintf(&batch, "{\"feed\":%q,\"data\":\"one of the batch\"}\n", name)
	}
	for round := range rounds {
		key := fmt.Sprintf("key-%d", round)
		demandOnce(t, askAtOnce(t, c.nodes, publishers, keyed{path: "/v1/feeds/chat/events", media: "text/plain", key: key, body: "hello"}))
		demandOnce(t, askAtOnce(t, c.nodes, publishers, keyed{path: "/v1/events", media: "application/x-ndjson", key: key, body: batch.String()}))
		demandOnce(t, askAtOnce(t, c.nodes, publishers, keyed{path: "/v1/feeds/log/events", media: "application/x-ndjson", key: key, body: "{\"data\":1}\n{\"data\":2}\n"}))
	}
	for _, n := range c.nodes {
		for name, want := range map[string]int{"chat": rounds, "log": 2 * rounds, "a": 2 * rounds, "e": 2 * rounds} {
			if h := readHistory(t, n.url, name); len(h.Events) != want || h.Last != feed.ID(want) {
				t.Errorf("%s has %d events and ends with %d, want %d: %s", name, len(h.Events), h.Last, want, h.Events)
			}
		}
	}
}

// keyed is a publish with a key, as often as it takes.
type keyed struct{ path, media, key, body string }

// keyedAnswer is what a publisher is told.
type keyedAnswer struct {
	status             int
	told               string // the body, and the headers that speak of the events
	replayed           bool
	retryAfter, detail string
}

func (k keyed) send(client *http.Client, url string) (a keyedAnswer, err error) {
	req, err := http.NewRequest(http.MethodPost, url+k.path, strings.NewReader(k.body))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", k.media)
	req.Header.Set("Idempotency-Key", k.key)
	resp, err := client.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return a, err
	}
	a.status, a.detail, a.retryAfter = resp.StatusCode, string(body), resp.Header.Get("Retry-After")
	a.replayed = resp.Header.Get("Idempotency-Replayed") == "true"
	a.told = fmt.Sprintf("%s\nLocation: %s\nETag: %s\nContent-Type: %s", body, resp.Header.Get("Location"), resp.Header.Get("ETag"), resp.Header.Get("Content-Type"))
	return a, nil
}

// askAtOnce sends the same request from many publishers, spread over the nodes,
// and returns all answers.
func askAtOnce(t *testing.T, nodes []*process, publishers int, k keyed) []keyedAnswer {
	t.Helper()
	answers := make([]keyedAnswer, publishers)
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: publishers}}
	defer client.CloseIdleConnections()
	begin := make(chan struct{})
	var connected, work sync.WaitGroup
	for i := range publishers {
		connected.Add(1)
		work.Go(func() {
			url := nodes[i%len(nodes)].url
			resp, err := client.Get(url + "/healthz") // so that the publish need not connect
			if err != nil {
				t.Error(err)
			} else {
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			connected.Done()
			<-begin
			if answers[i], err = k.send(client, url); err != nil {
				t.Errorf("publisher %d: %v", i, err)
			}
		})
	}
	connected.Wait()
	close(begin)
	work.Wait()
	return answers
}

// demandOnce demands that all answers say the same, and that one is the first.
func demandOnce(t *testing.T, answers []keyedAnswer) {
	t.Helper()
	first := 0
	for i, a := range answers {
		if a.status != http.StatusCreated || a.told != answers[0].told {
			t.Errorf("publisher %d was answered %d %s\nand publisher 0 %s", i, a.status, a.told, answers[0].told)
		}
		if !a.replayed {
			first++
		}
	}
	if first != 1 {
		t.Errorf("%d of %d answers are no replay, want 1", first, len(answers))
	}
}
