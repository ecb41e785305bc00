package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// run is one run.
type run struct {
	Options
	target    *target
	mark      string // in the data of all events of the run
	began     time.Time
	inTurn    bool // the numbers of each feed are published one after another
	processes []int

	feeds   []*feedState
	reading sync.WaitGroup
	closing atomic.Bool // streams that end are meant to
	meter   atomic.Pointer[meter]
	faults  faults
	result  Result
}

func newRun(mode Mode, o Options) *run {
	id := strings.ToLower(rand.Text()[:8])
	r := &run{
		Options:   o,
		target:    newTarget(o.Client.URL(), o.Token),
		mark:      "rejoin-bench-" + id,
		began:     time.Now(),
		processes: withChildren(o.PIDs),
		feeds:     make([]*feedState, o.Feeds),
	}
	if mode == Resume || mode == Idle {
		r.Publishers = min(r.Publishers, o.Feeds)
	}
	r.inTurn = r.Publishers <= o.Feeds
	for i := range r.feeds {
		name := fmt.Sprintf("%s:%s:%d", o.Prefix, id, i)
		r.feeds[i] = &feedState{index: i, name: name, head: r.target.head("POST", o.Peer.published(name))}
	}
	r.result = Result{
		Mode: mode, Server: o.Peer.Name, Subscribers: o.Subscribers, Feeds: o.Feeds,
		Publishers: r.Publishers, Batch: o.Batch, Rate: o.Rate, Size: o.Size, Backlog: o.Backlog,
	}
	r.newMeter()
	return r
}

// now is the time since the beginning: clocks that jump do not matter to it.
func (r *run) now() time.Duration { return time.Since(r.began) }

func (r *run) newMeter() *meter {
	m := newMeter(runtime.GOMAXPROCS(0))
	r.meter.Store(m)
	return m
}

// newSubscribers returns n subscribers that are yet to be opened, spread over
// the feeds.
func (r *run) newSubscribers(n int) []*subscriber {
	all := make([]*subscriber, n)
	for i := range all {
		all[i] = &subscriber{run: r, index: i, feed: r.feeds[i%len(r.feeds)]}
		all[i].feed.streams++
	}
	return all
}

// open opens the subscribers and notes what that cost.
func (r *run) open(ctx context.Context, subscribers []*subscriber) error {
	watch := r.watch()
	if err := r.subscribe(ctx, subscribers); err != nil {
		r.unsubscribe(subscribers)
		return err
	}
	took := watch.stop()
	r.result.OpenSeconds = took.wall.Seconds()
	if len(r.processes) > 0 {
		r.result.OpenCPU = new(took.server.Seconds() * 1e6 / float64(len(subscribers)))
	}
	return nil
}

// finish closes the subscribers and counts what they have not got.
func (r *run) finish(subscribers []*subscriber) {
	r.awaitEnds(len(subscribers))
	r.unsubscribe(subscribers)
	for _, s := range subscribers {
		r.result.Lost += s.lost()
	}
}

// awaitEnds waits, if the server may have gone, until all streams have ended, or until
// none has for a second: those that are closed before their ends were read would not count.
func (r *run) awaitEnds(subscribers int) {
	if r.faults.ended.Load() == 0 && r.faults.failed.Load() == 0 {
		return
	}
	ended, quiet := r.faults.ended.Load(), time.Now()
	for ended < int64(subscribers) && time.Since(quiet) < time.Second {
		time.Sleep(time.Millisecond)
		if n := r.faults.ended.Load(); n != ended {
			ended, quiet = n, time.Now()
		}
	}
}

// interruptedWait is how long an interrupted run waits for an answer, or for
// another delivery.
const interruptedWait = 2 * time.Second

// awaitAll waits until the meter has all deliveries that are expected, or until
// nothing has come for so long that they count as lost.
func (r *run) awaitAll(ctx context.Context, m *meter, subscribers int) {
	delivered, quiet := m.delivered(), time.Now()
	for delivered < m.expected.Load() && r.faults.ended.Load() < int64(subscribers) {
		time.Sleep(time.Millisecond) // also when ctx has ended: what is under way may still come
		if n := m.delivered(); n != delivered {
			delivered, quiet = n, time.Now()
		}
		if time.Since(quiet) > r.Drain || ctx.Err() != nil && time.Since(quiet) > interruptedWait {
			return
		}
	}
}

func (r *run) fanout(ctx context.Context) error {
	subscribers := r.newSubscribers(r.Subscribers)
	if err := r.open(ctx, subscribers); err != nil {
		return err
	}
	defer r.finish(subscribers)
	return r.publishFor(ctx, len(subscribers))
}

func (r *run) publish(ctx context.Context) error {
	if err := r.publishFor(ctx, 0); err != nil {
		return err
	}
	r.checkIDs()
	return nil
}

// publishFor publishes for the duration, after the warm-up, and measures until
// all of it has arrived.
func (r *run) publishFor(ctx context.Context, subscribers int) error {
	publishers := r.publishersOf(r.Publishers)
	defer closePublishers(publishers)
	warm := r.meter.Load()
	if err := r.drive(ctx, publishers, plan{rate: r.Rate, duration: r.Warmup}); err != nil {
		return err
	}
	r.awaitAll(ctx, warm, subscribers)
	if err := ctx.Err(); err != nil {
		return err
	}
	m := r.newMeter()
	watch := r.watch()
	err := r.drive(ctx, publishers, plan{rate: r.Rate, duration: r.Duration})
	published := r.now() - watch.began
	r.awaitAll(ctx, m, subscribers)
	r.result.take(m, watch.stop(), published, len(r.processes) > 0)
	return err
}

func closePublishers(publishers []*publisher) {
	for _, p := range publishers {
		p.close()
	}
}

// checkIDs counts ids that the publishes were answered with twice, or not at
// all.
func (r *run) checkIDs() {
	if !r.Peer.Dense || r.faults.failed.Load() > 0 {
		return // a failed publish may have been stored
	}
	for _, f := range r.feeds {
		missing := int64(f.last.Load()) - f.accepted.Load()
		r.result.Lost += max(0, missing)
		r.faults.repeated.Add(max(0, -missing))
	}
}

// before is how many events a feed has before the backlog that is resumed.
const before = 10

func (r *run) resume(ctx context.Context) error {
	cursors, err := r.makeBacklog(ctx)
	if err != nil {
		return err
	}
	for _, f := range r.feeds {
		f.streams = 0
	}
	subscribers := r.newSubscribers(r.Subscribers)
	for _, s := range subscribers {
		s.cursor, s.after, s.wants = cursors[s.feed.index], before, int64(r.Backlog)
	}
	// The server has to be through with the streams that were just closed.
	if err := wait(ctx, time.Second); err != nil {
		return err
	}
	m := r.newMeter()
	m.expected.Store(int64(r.Backlog) * int64(len(subscribers)))
	watch := r.watch()
	if err := r.open(ctx, subscribers); err != nil {
		return err
	}
	defer r.finish(subscribers)
	r.awaitAll(ctx, m, len(subscribers))
	r.result.take(m, watch.stop(), 0, len(r.processes) > 0)
	return nil
}

// makeBacklog publishes what is to be resumed, while one subscriber a feed
// looks on, and returns the cursors that have the backlog behind them.
func (r *run) makeBacklog(ctx context.Context) ([]string, error) {
	probes := r.newSubscribers(len(r.feeds))
	for _, p := range probes {
		p.mark = before
	}
	if err := r.subscribe(ctx, probes); err != nil {
		r.unsubscribe(probes)
		return nil, err
	}
	defer r.unsubscribe(probes)
	publishers := r.publishersOf(r.Publishers)
	defer closePublishers(publishers)
	m := r.meter.Load()
	if err := r.drive(ctx, publishers, plan{each: before + r.Backlog}); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r.awaitAll(ctx, m, len(probes))
	cursors := make([]string, len(probes))
	for i, p := range probes {
		marked := p.marked.Load()
		if marked == nil || p.lost() > 0 {
			return nil, fmt.Errorf("the subscriber that was there while the backlog was made has missed %d events", p.lost())
		}
		cursors[i] = *marked
	}
	return cursors, nil
}

func (r *run) idle(ctx context.Context) error {
	memory := memoryOf(r.processes)
	subscribers := r.newSubscribers(r.Subscribers)
	if err := r.open(ctx, subscribers); err != nil {
		return err
	}
	defer r.finish(subscribers)
	if err := wait(ctx, r.Hold); err != nil {
		return err
	}
	if len(r.processes) > 0 {
		r.result.Memory = new(math.Round(float64(memoryOf(r.processes)-memory) / float64(len(subscribers))))
	}
	publishers := r.publishersOf(r.Publishers)
	defer closePublishers(publishers)
	m := r.newMeter()
	watch := r.watch()
	err := r.drive(ctx, publishers, plan{each: 1})
	r.awaitAll(ctx, m, len(subscribers))
	r.result.take(m, watch.stop(), 0, len(r.processes) > 0)
	return err
}

// usage is the time that something took.
type usage struct{ wall, server, self time.Duration }

// stopwatch measures a stretch of a run.
type stopwatch struct {
	run   *run
	began time.Duration
	use   usage
}

func (r *run) watch() *stopwatch {
	return &stopwatch{r, r.now(), usage{server: cpuOf(r.processes), self: cpuOf([]int{os.Getpid()})}}
}

func (w *stopwatch) stop() usage {
	return usage{
		wall:   w.run.now() - w.began,
		server: cpuOf(w.run.processes) - w.use.server,
		self:   cpuOf([]int{os.Getpid()}) - w.use.self,
	}
}

// judge completes the result.
func (r *run) judge(interrupted bool) {
	x := &r.result
	x.Repeated, x.Reordered = r.faults.repeated.Load(), r.faults.reordered.Load()
	x.Failed, x.Ended, x.Strays = r.faults.failed.Load(), r.faults.ended.Load(), r.faults.strays.Load()
	if interrupted {
		x.warn("interrupted: it measured for %.1f s", x.Seconds)
	}
	if x.GeneratorBusy > 0.85 {
		x.warn("the generator was busy %.0f %% of the time on its %d cores: it may have been the limit, and some of the latency is its own",
			100*x.GeneratorBusy, runtime.GOMAXPROCS(0))
	}
	if reached := x.PublishesPerSecond; r.Rate > 0 && !interrupted && reached < 0.95*r.Rate {
		x.warn("%.0f publishes/s of %.0f: the server, or its %d publishers, did not keep the rate", reached, r.Rate, x.Publishers)
	}
}
