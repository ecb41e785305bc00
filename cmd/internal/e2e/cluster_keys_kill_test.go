package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

var keyKills = flag.Int("key-kills", 6, "how many nodes the tests of keys kill")

// TestClusterKeysKill kills nodes while each publisher repeats what it has not
// had an answer to, with its key, on whichever node: so also between the commit
// and the answer. In the end each key is there once, under what was answered.
func TestClusterKeysKill(t *testing.T) {
	t.Parallel()
	onEachBus(t, func(t *testing.T, c *cluster) { testKeysKill(c, c.bus(), 2) })
	t.Run("sqlite", func(t *testing.T) {
		testKeysKill(newClusterOn(t, "sqlite:"+filepath.Join(t.TempDir(), "rejoin.db")), "memory", 1)
	})
}

func testKeysKill(c *cluster, bus string, nodes int) {
	for range nodes {
		c.startNode(bus)
	}
	k := &keyPublishers{c: c, answers: make(map[string]string), serving: slices.Clone(c.nodes)}
	stop := k.start(16)
	// Whether a kill falls between commit and answer is chance: go on until
	// some did.
	for round := 0; round < *keyKills || k.found() == 0 && round < 5**keyKills; round++ {
		time.Sleep(time.Duration(50+rand.IntN(150)) * time.Millisecond) // a random moment
		i := round % nodes
		k.node(i).kill()
		k.replace(i, c.startNode(bus))
	}
	stop()
	k.judge()
}

// keyPublishers publish with keys until each is answered, and know what was.
type keyPublishers struct {
	c *cluster

	mu      sync.Mutex
	serving []*process
	answers map[string]string // the body, by the key
	after   int               // of those, how many were stored by a request that got no answer
	retried int
	faults  []string
}

func (k *keyPublishers) node(i int) *process {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.serving[i]
}

func (k *keyPublishers) replace(i int, p *process) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.serving[i] = p
}

func (k *keyPublishers) found() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.after
}

func (k *keyPublishers) start(publishers int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for i := range publishers {
		work.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
			defer client.CloseIdleConnections()
			for j := 1; ctx.Err() == nil; j++ {
				k.publish(client, request(i, j))
			}
		})
	}
	stop = sync.OnceFunc(func() { cancel(); work.Wait() })
	k.c.t.Cleanup(stop)
	return stop
}

// request returns the publisher's next publish: of one event, or of a batch
// over three feeds. An event's data is the name of its key.
func request(publisher, count int) keyed {
	key := fmt.Sprintf("publisher-%d-%d", publisher, count)
	if count%3 > 0 {
		return keyed{path: "/v1/feeds/chat/events", media: "text/plain", key: key, body: key}
	}
	var lines strings.Builder
	for _, name := range keyFeeds {
		fmt.Fprintf(&lines, "{\"feed\":%q,\"data\":%q}\n", name, key)
	}
	return keyed{path: "/v1/events", media: "application/x-ndjson", key: key, body: lines.String()}
}

var keyFeeds = []string{"chat", "news", "log"}

// publish sends until there is an answer, and now and then once more.
func (k *keyPublishers) publish(client *http.Client, r keyed) {
	began := time.Now()
	for try := 0; ; try++ {
		a, err := r.send(client, k.node(rand.IntN(len(k.serving))).url)
		switch {
		case time.Since(began) > 3*time.Minute:
			k.fault("%s gets no answer, in %d tries: %d %s, %v", r.key, try, a.status, a.detail, err)
			return
		case err != nil, a.status == http.StatusServiceUnavailable && a.retryAfter != "":
			time.Sleep(15 * time.Millisecond) // the node is being started
			continue
		case a.status != http.StatusCreated:
			k.fault("%s, try %d: %d %s", r.key, try, a.status, a.detail)
			return
		}
		if k.accept(r, a, try) || rand.IntN(10) > 0 {
			return
		}
	}
}

// accept accounts for an answer, and reports whether there was one before.
func (k *keyPublishers) accept(r keyed, a keyedAnswer, try int) (again bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	known, again := k.answers[r.key]
	switch {
	case again && (known != a.told || !a.replayed):
		k.faults = append(k.faults, fmt.Sprintf("%s was answered %s\nand then, a replay: %t, %s", r.key, known, a.replayed, a.told))
	case !again && a.replayed && try == 0:
		k.faults = append(k.faults, fmt.Sprintf("%s was known before it was used: %s", r.key, a.told))
	case !again && a.replayed:
		k.after++
	}
	if !again && try > 0 {
		k.retried++
	}
	k.answers[r.key] = a.told
	return again
}

func (k *keyPublishers) fault(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.faults = append(k.faults, fmt.Sprintf(format, args...))
}

// judge compares what was answered with what is stored.
func (k *keyPublishers) judge() {
	t := k.c.t
	t.Helper()
	for _, fault := range k.faults {
		t.Error(fault)
	}
	stored := make(map[string]map[string]wireEvent) // by key and feed
	events := 0
	for _, name := range keyFeeds {
		for i, raw := range readHistory(t, k.serving[0].url, name).Events {
			var e wireEvent
			if err := json.Unmarshal(raw, &e); err != nil {
				t.Fatal(err)
			}
			key := e.event().Data
			if e.ID != feed.ID(i)+1 {
				t.Errorf("%s: event %d stands where %d belongs", name, e.ID, i+1)
			}
			if stored[key] == nil {
				stored[key] = make(map[string]wireEvent)
			}
			if old, twice := stored[key][name]; twice {
				t.Errorf("%s: the key %s is stored as %d and as %d", name, key, old.ID, e.ID)
			}
			stored[key][name] = e
			events++
		}
	}
	for key, answer := range k.answers {
		if want := tell(stored[key]); !strings.HasPrefix(answer, want+"\n") {
			t.Errorf("%s was answered %s\nand is stored as %s", key, answer, want)
		}
	}
	for key := range stored {
		if _, ok := k.answers[key]; !ok {
			t.Errorf("%s is stored, and was answered to nobody", key)
		}
	}
	t.Logf("%d keys, %d events; %d were sent again, of which %d had been stored", len(k.answers), events, k.retried, k.after)
	if k.after == 0 {
		t.Error("no kill fell between the commit and its answer: nothing was tried")
	}
	if t.Failed() {
		for _, n := range k.serving {
			t.Log(n.log)
		}
	}
}

// tell returns the answer that the events of one key deserve.
func tell(events map[string]wireEvent) string {
	if e, ok := events["chat"]; ok && len(events) == 1 {
		return fmt.Sprintf(`{"feed":"chat","id":%d,"time":%q}`, e.ID, e.Time.Format("2006-01-02T15:04:05.000Z"))
	}
	var entries []string
	for _, name := range keyFeeds {
		if e, ok := events[name]; ok {
			entries = append(entries, fmt.Sprintf(`{"feed":%q,"id":%d}`, name, e.ID))
		}
	}
	return `{"events":[` + strings.Join(entries, ",") + `]}`
}
