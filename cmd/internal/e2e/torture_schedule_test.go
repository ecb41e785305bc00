package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/verify"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// schedule is one short life of a world, made from a seed: who publishes and
// subscribes, what is broken when and what is trimmed.
type schedule struct {
	seed    uint64
	world   *tortureWorld
	random  *rand.Rand
	blows   []laidBlow
	trims   []laidTrim
	feeds   []string
	quiet   []string // feeds that get one event, when things are broken
	wide    []string // many feeds, which get events now and then
	written []string // feeds that applications write to in SQL; none over SQLite
	// Feeds that get closed, and those that nobody follows before the store is away.
	closing, unknown []string
	all              []string

	recording             *feedtest.Recording
	subscribers           []*verify.Subscriber
	latecomers            []latecomer
	made                  uint64 // subscribers
	publishers, followers sync.WaitGroup
	counts                verify.Counts
	publish, follow       context.Context // of those that come later than the others
	shared                *sharedConnections
	answers, answersHTTP2 atomic.Int64 // to subscribers and readers of pages

	mu       sync.Mutex
	faults   []feedtest.Fault
	orders   []trimOrder
	queued   []queuedEvent
	whispers []whisper
	copies   []*storeCopy
}

// laidBlow is a blow with its time.
type laidBlow struct {
	blow
	at, lasts time.Duration // from when the faults begin
	seed      uint64
}

// laidTrim is a trim with its time: of a feed, all but the newest, or all.
type laidTrim struct {
	feed    string
	keep    feed.ID
	deletes bool
	at      time.Duration
}

const (
	tortureFeeds   = 4
	tortureQuiet   = 12
	tortureWritten = 2
	tortureWide    = 83
	tortureClosing = 4
	tortureUnknown = 20
	tortureHealth  = 700 * time.Millisecond // before the first fault
	tortureOverlay = 1500 * time.Millisecond
	tortureSettles = time.Second // of publishing, after the last
	tortureLongest = 2500 * time.Millisecond
	// tortureArrives is how long everything may take to arrive when nothing
	// is broken any more.
	tortureArrives = 15 * time.Second
)

// draw makes the schedule of a seed.
func (w *tortureWorld) draw(seed uint64) *schedule {
	random := rand.New(rand.NewPCG(seed, 0))
	s := &schedule{seed: seed, world: w, random: random, recording: feedtest.NewRecording(), shared: newSharedConnections()}
	for i := range tortureFeeds {
		s.feeds = append(s.feeds, fmt.Sprintf("t%d.%d", seed, i))
	}
	for i := range tortureQuiet {
		s.quiet = append(s.quiet, fmt.Sprintf("t%d.quiet%d", seed, i))
	}
	for i := range tortureWide {
		s.wide = append(s.wide, fmt.Sprintf("t%d.w%d", seed, i))
	}
	for i := range tortureClosing {
		s.closing = append(s.closing, fmt.Sprintf("t%d.closing%d", seed, i))
	}
	for i := range tortureUnknown {
		s.unknown = append(s.unknown, fmt.Sprintf("t%d.unknown%d", seed, i))
	}
	for i := range tortureWritten {
		if w.postgres != nil {
			s.written = append(s.written, fmt.Sprintf("t%d.written%d", seed, i))
		}
	}
	s.all = slices.Concat(s.feeds, s.quiet, s.wide, s.written, s.closing, s.unknown)
	families := w.blows()
	taken := make(map[string]bool)
	for count := 1 + random.IntN(3); count > 0 && len(families) > 0; count-- {
		family := families[random.IntN(len(families))]
		b := laidBlow{
			blow: family[random.IntN(len(family))], seed: random.Uint64(),
			at:    time.Duration(random.Int64N(int64(tortureOverlay))),
			lasts: 200*time.Millisecond + time.Duration(random.Int64N(int64(tortureLongest-200*time.Millisecond))),
		}
		if !taken[b.target] {
			taken[b.target] = true
			s.blows = append(s.blows, b)
		}
	}
	for range random.IntN(4) {
		s.trims = append(s.trims, laidTrim{
			feed: s.feeds[random.IntN(len(s.feeds))], keep: feed.ID(random.Uint64N(30)),
			at: time.Duration(random.Int64N(int64(3 * time.Second))),
		})
	}
	for range random.IntN(3) {
		of := [][]string{s.feeds, s.wide, s.closing}[random.IntN(3)]
		s.trims = append(s.trims, laidTrim{
			feed: of[random.IntN(len(of))], deletes: true,
			at: time.Duration(random.Int64N(int64(4 * time.Second))),
		})
	}
	return s
}

// String is the schedule as a failure shows it.
func (s *schedule) String() string {
	var parts []string
	for _, b := range s.blows {
		parts = append(parts, fmt.Sprintf("%v to %v: %s, of %s", b.at.Round(time.Millisecond), (b.at+b.lasts).Round(time.Millisecond), b.name, b.target))
	}
	for _, t := range s.trims {
		if t.deletes {
			parts = append(parts, fmt.Sprintf("%v: %s is deleted", t.at.Round(time.Millisecond), t.feed))
			continue
		}
		parts = append(parts, fmt.Sprintf("%v: %s is trimmed to its newest %d", t.at.Round(time.Millisecond), t.feed, t.keep))
	}
	slices.SortFunc(parts, strings.Compare)
	return strings.Join(parts, "\n")
}

// run carries the schedule out and returns what the judge says.
func (s *schedule) run() *feedtest.Report {
	s.world.now = s
	publishing, following := s.startPublishers(), s.startSubscribers()
	time.Sleep(tortureHealth)
	var work sync.WaitGroup
	start := time.Now()
	for _, b := range s.blows {
		work.Go(func() { s.strike(b, start) })
	}
	for _, t := range s.trims {
		work.Go(func() { s.trim(t, start) })
	}
	work.Wait()
	for i, n := range s.world.nodes {
		if p := n.running(); ended(p) {
			s.found("node %d has ended by itself: %v\n%s", i, p.err, p.log)
			n.start()
		}
		if within := bound(boundStore); !n.ready(within) {
			s.found("node %d is not ready %v after the last fault", i, within)
		}
	}
	s.publishToLatecomers()
	time.Sleep(tortureSettles)
	publishing()
	s.awaitQueue()
	s.collect()
	s.concludeQueue()
	following()
	s.shared.transport.CloseIdleConnections()
	s.conclude()
	return s.recording.Judge()
}

// slower is how much more time everything takes with the race detector.
func slower() time.Duration {
	if *detectRaces {
		return 3
	}
	return 1
}

// judgesLatency reports whether the torture runs by itself, as make torture has it. As
// one of all tests, it has to pass beside the others on any machine: it judges what is
// delivered, not how soon, and has fewer clients.
func judgesLatency() bool { return *tortureFor >= time.Minute }

// bound returns how long something may take whose bound is d. Where latency is not judged,
// it may take as long as everything may when nothing is broken any more.
func bound(d time.Duration) time.Duration {
	if !judgesLatency() {
		d = max(d, tortureArrives)
	}
	return d * slower()
}

func (s *schedule) found(format string, args ...any) {
	s.recording.Found(feedtest.Finding{Kind: "bad node", Detail: fmt.Sprintf(format, args...)})
}

// strike lays a blow, and notes when that was.
func (s *schedule) strike(b laidBlow, start time.Time) {
	time.Sleep(time.Until(start.Add(b.at)))
	f := feedtest.Fault{Name: b.name, From: time.Now(), Bound: bound(b.bound), Settle: b.bound * slower(), Stops: b.stops}
	if b.away != nil {
		s.startLatecomers(b)
	}
	defer func() {
		f.Until = time.Now()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.faults = append(s.faults, f)
	}()
	b.lay(s.world, b.lasts, rand.New(rand.NewPCG(b.seed, 1)))
}

// collect reads what the store holds and waits until everybody has it.
func (s *schedule) collect() {
	v := &verify.Collector{
		Clients: s.clientsOf(clientHTTP1, s.urls()), Feeds: s.all, Subscribers: s.subscribers,
		Recording: s.recording, Patience: tortureArrives * slower(),
	}
	defer hangUp(v.Clients)
	if err := v.Collect(s.world.t.Context()); err != nil {
		s.found("when nothing was broken any more: %v", err)
	}
}

// conclude notes, now that all is known, which faults there were, and when what
// was trimmed or not stored had to be gone.
func (s *schedule) conclude() {
	for _, f := range s.faults {
		s.recording.Broken(f)
	}
	for _, order := range s.orders {
		if !order.Gone.IsZero() {
			order.Gone = s.everywhere(order.Gone)
		}
		s.recording.Trimmed(order.Trim)
		if order.again {
			// It may be carried out once more, at any later time.
			s.recording.Trimmed(feedtest.Trim{Feed: order.Feed, Before: s.recording.First(order.Feed), Asked: order.Asked})
		}
	}
	for _, w := range s.whispers {
		if !w.answered.IsZero() {
			w.Gone = s.everywhere(w.answered)
		}
		s.recording.Sent(w.Ephemeral)
	}
	for _, c := range s.copies {
		c.report(s.recording)
	}
}

// everywhere returns when what a node did at a time has reached every other.
func (s *schedule) everywhere(at time.Time) time.Time {
	at = at.Add(bound(2 * time.Second))
	for _, f := range s.faults {
		// A node that could not be reached may not have heard of it.
		if later := f.Until.Add(bound(boundStore)); f.From.Before(at) && later.After(at) {
			at = later
		}
	}
	return at
}

func (s *schedule) urls() (all []*url.URL) {
	for _, n := range s.world.nodes {
		all = append(all, n.url)
	}
	return all
}
