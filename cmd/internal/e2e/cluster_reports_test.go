package e2e

import (
	"bufio"
	"encoding/json"
	"net/http"
	"sync"
	"testing"
	"time"
)

// nodeReport is what a test reads of a node's report of itself.
type nodeReport struct {
	Node, Version string
	Subscribers   int
	Store, Bus    struct{ Up bool }
	Followed      map[string]int

	came time.Time
}

// nodeReports has the newest report of each node.
type nodeReports struct {
	mu   sync.Mutex
	last map[string]nodeReport
}

// followReports reads the reports of all nodes at one of them.
func followReports(t *testing.T, n *process) *nodeReports {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.url+"/v1/feeds/feed.nodes/events?types=node", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		t.Fatal(resp.Status)
	}
	reports := &nodeReports{last: make(map[string]nodeReport)}
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			var event struct {
				Type string
				Data nodeReport
			}
			if json.Unmarshal(lines.Bytes(), &event) == nil && event.Type == "node" {
				event.Data.came = time.Now()
				reports.mu.Lock()
				reports.last[event.Data.Node] = event.Data
				reports.mu.Unlock()
			}
		}
	})
	t.Cleanup(func() {
		resp.Body.Close()
		reading.Wait()
	})
	return reports
}

// await waits until as many nodes have reported in the last three seconds, and their
// followers of the feed are as many.
func (r *nodeReports) await(t *testing.T, nodes int, name string, followers int) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) { // until they have reported
		alive, sum, healthy := 0, 0, true
		r.mu.Lock()
		for _, one := range r.last {
			if time.Since(one.came) < 3*time.Second {
				alive++
				sum += one.Followed[name]
				healthy = healthy && one.Store.Up && one.Bus.Up && one.Version != ""
			}
		}
		all := len(r.last)
		r.mu.Unlock()
		if alive == nodes && sum == followers && healthy {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d nodes report %d subscribers of %s, all well: %t; want %d nodes and %d", alive, all, sum, name, healthy, nodes, followers)
		}
	}
}
