package e2e

import (
	"context"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var soakMemory = flag.String("soak-memory", "64MiB", "limits.memory of the node in TestSoakHostile; empty for a node that does not know the key")

const (
	hostileShortest = 11 * time.Second // as part of all tests
	hostileLong     = time.Minute      // from here on it is done in full measure
	hostileBudget   = 64 << 20
	hostileProcess  = 64 << 20 // what the process itself takes
	hostileStream   = 2 << 10  // and each stream
	hostileEnough   = 6 << 30  // where it ends: the machine has others on it
	hostileDelay    = 250 * time.Millisecond
	hostileAnswer   = 12 * time.Second // the longest that a publisher waits
)

// TestSoakHostile: a node has a budget for what it holds on behalf of others, and
// keeps to it whatever they do, all at once: large events published to a store
// that stands still, by clients that have left; events that take a different
// form for every connection; more feeds than fit; pages and streams that are not
// read; requests that are longer than what they carry; and batches of events that
// many streams follow. Those who behave hardly notice. It runs longer, and in
// full measure, with -soak-for 5m.
func TestSoakHostile(t *testing.T) {
	store := newHeldStore(t)
	env := append(store.env(), "REJOIN_ADMIN_LISTEN=127.0.0.1:0", "REJOIN_AUTH_MODE=none")
	if *soakMemory != "" {
		env = append(env, "REJOIN_LIMITS_MEMORY="+*soakMemory)
	}
	p := serve(t, built(t, true), filepath.Join(t.TempDir(), "rejoin.db"), env...)
	p.awaitReady()
	cold := soakOf(p, p.adminURL())
	h := newHostile(t, p, store)
	watching := h.watch()
	h.prepare()
	h.soak(max(*soakFor, hostileShortest))
	watching()
	h.judge()

	patience := 30 * time.Second
	if h.full {
		patience = time.Minute
	}
	began := time.Now()
	after := p.awaitFewerFor(h.admin, cold, patience)
	t.Logf("cold %v; %v after %.0f s", cold, after, time.Since(began).Seconds())
}

// hostile is the load on one node.
type hostile struct {
	t       *testing.T
	p       *process
	store   *heldStore
	admin   string
	address string
	full    bool // measure
	work    sync.WaitGroup

	streams atomic.Int64 // that are open
	calm    *calm
	answers hostileAnswers

	mu   sync.Mutex
	peak hostilePeak
	over hostilePeak // by how much it was over what it may have, at worst
}

// hostilePeak is how large the process was, and when.
type hostilePeak struct {
	rss     int
	streams int64
	after   time.Duration
	held    string // by whom, as it says itself
}

func newHostile(t *testing.T, p *process, store *heldStore) *hostile {
	h := &hostile{t: t, p: p, store: store, admin: p.adminURL(), address: strings.TrimPrefix(p.url, "http://"), full: *soakFor >= hostileLong}
	h.calm = newCalm(h)
	return h
}

// some returns how many there are of something: a quarter in the short run.
func (h *hostile) some(n int) int {
	if h.full {
		return n
	}
	return n / 4
}

// soak lays all of the load on the node for a time.
func (h *hostile) soak(how time.Duration) {
	ctx, cancel := context.WithTimeout(h.t.Context(), how)
	defer cancel()
	h.work.Go(func() { h.calm.run(ctx) })
	h.startReaders(ctx)
	h.startPublishers(ctx)
	h.startHolds(ctx)
	h.work.Wait()
	h.calm.close()
}

// startHolds has the store stand still at times, with publishers who give up
// waiting.
func (h *hostile) startHolds(ctx context.Context) {
	holds, pause := []time.Duration{6 * time.Second}, 4*time.Second
	if h.full {
		holds, pause = []time.Duration{5 * time.Second, 20 * time.Second, 12 * time.Second}, 15*time.Second
	}
	h.work.Go(func() {
		for i := 0; sleep(ctx, pause) == nil; i++ {
			letGo := h.store.hold()
			held, cancel := context.WithTimeout(ctx, holds[i%len(holds)])
			h.impatient(held)
			cancel()
			letGo()
		}
	})
}

// watch looks at how large the process is, until it is stopped.
func (h *hostile) watch() (stop func()) {
	began := time.Now()
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for noted := (time.Time{}); ; {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			if ended := h.look(began); ended {
				return
			}
			if time.Since(noted) > 5*time.Second {
				noted = time.Now()
				h.t.Logf("%3.0f s: %d MB, %d streams", time.Since(began).Seconds(), h.p.rss()>>20, h.streams.Load())
			}
		}
	}()
	return func() { close(done); <-ended }
}

func (h *hostile) look(began time.Time) (ended bool) {
	now := hostilePeak{rss: h.p.rss(), streams: h.streams.Load(), after: time.Since(began)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if now.rss > h.peak.rss {
		h.peak = now
	}
	over := func(p hostilePeak) int {
		return p.rss - hostileBudget - hostileProcess - hostileStream*int(p.streams)
	}
	if over(now) > max(0, over(h.over)) {
		now.held = h.held()
		h.over = now
	}
	if now.rss > hostileEnough {
		h.t.Errorf("the process has %d MB: that is enough", now.rss>>20)
		_ = h.p.cmd.Process.Kill()
		return true
	}
	return false
}

// held returns what the node says it holds, by holder.
func (h *hostile) held() string {
	resp, err := soakClient.Get(h.admin + "/metrics")
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) // it is only for people
	var held []string
	for line := range strings.Lines(string(text)) {
		for _, name := range []string{"rejoin_memory_bytes", "go_memstats_heap_inuse_bytes", "go_memstats_heap_alloc_bytes", "go_goroutines"} {
			if strings.HasPrefix(line, name) {
				held = append(held, strings.TrimSpace(line))
			}
		}
	}
	return strings.Join(held, ", ")
}

// judge demands what the node promises.
func (h *hostile) judge() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.t.Logf("at most %d MB, with %d streams, after %.0f s", h.peak.rss>>20, h.peak.streams, h.peak.after.Seconds())
	if o := h.over; o.rss > 0 {
		h.t.Errorf("the process had %d MB with %d streams after %.0f s; %d MB, %d MB and %d bytes a stream are %d MB\n%s", o.rss>>20, o.streams, o.after.Seconds(),
			hostileBudget>>20, hostileProcess>>20, hostileStream, (hostileBudget+hostileProcess+hostileStream*int(o.streams))>>20, o.held)
	}
	h.answers.judge(h.t)
	h.calm.judge()
}

// hostileAnswers is what patient publishers were answered.
type hostileAnswers struct {
	mu       sync.Mutex
	statuses map[int]int
	worst    time.Duration
	wrong    []string // the first ones
}

// add adds an answer and how long it took. A status of 0 is for none.
func (a *hostileAnswers) add(status int, took time.Duration, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.statuses == nil {
		a.statuses = make(map[int]int)
	}
	a.statuses[status]++
	a.worst = max(a.worst, took)
	if (status != 201 && status != 503 || took > hostileAnswer && *soakFor >= hostileLong) && len(a.wrong) < 10 {
		a.wrong = append(a.wrong, fmt.Sprintf("%d after %v (%v)", status, took.Round(time.Millisecond), err))
	}
}

func (a *hostileAnswers) judge(t *testing.T) {
	a.mu.Lock()
	defer a.mu.Unlock()
	t.Logf("patient publishers were answered %v, after %v at worst", a.statuses, a.worst.Round(time.Millisecond))
	if len(a.wrong) > 0 {
		t.Errorf("publishers were not answered 201 or 503, in a long run within %v, but:\n%s", hostileAnswer, strings.Join(a.wrong, "\n"))
	}
	if a.statuses[201] == 0 {
		t.Error("nothing was published, so nothing is proven")
	}
}

// quantile returns the q quantile of what is sorted.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// judge demands of the calm subscribers' delays what they were promised.
func (c *calm) judge() {
	delays, missing := c.delays()
	slices.Sort(delays)
	p99 := quantile(delays, 0.99)
	c.h.t.Logf("%d deliveries to those who behave: p50 %v, p99 %v, worst %v; %d never came", len(delays), quantile(delays, 0.5), p99, quantile(delays, 1), missing)
	switch {
	case len(delays) == 0:
		c.h.t.Error("nothing was delivered to those who behave, so nothing is proven")
	case c.h.full && p99 > hostileDelay: // a short one of all tests has to pass on any machine
		c.h.t.Errorf("1 of 100 deliveries to those who behave took %v or more, the bound is %v", p99, hostileDelay)
	case missing > 0:
		c.h.t.Errorf("%d deliveries to those who behave never came", missing)
	}
}
