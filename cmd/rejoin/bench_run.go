package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed/client"
)

// benchRun is one run of rejoin bench.
type benchRun struct {
	benchOptions
	target    *benchTarget
	mark      string // in the data of all events of the run
	began     time.Time
	inTurn    bool // the numbers of each feed are published one after another
	processes []int

	feeds   []*benchFeed
	reading sync.WaitGroup
	closing atomic.Bool // streams that end are meant to
	meter   atomic.Pointer[benchMeter]
	faults  benchFaults
	result  benchResult
}

// bench carries out one mode and prints what came of it.
func bench(ctx context.Context, mode benchMode, o benchOptions, stdout, stderr io.Writer) error {
	r := newBenchRun(mode, o)
	stop := r.showProgress(stderr)
	err := knock(ctx, []*client.Client{o.client})
	if err == nil {
		err = mode.run(r, ctx)
	}
	stop()
	switch {
	case err == nil || r.result.measured:
	case ctx.Err() != nil:
		return errors.New("bench: interrupted before anything was measured")
	default:
		return fmt.Errorf("bench: %w", err)
	}
	r.judge(ctx.Err() != nil)
	if err := r.result.print(stdout, o.json); err != nil {
		return fmt.Errorf("write standard output: %w", err)
	}
	if err := errors.Join(err, r.result.failure(&r.faults)); err != nil {
		return fmt.Errorf("bench: %w", err)
	}
	return nil
}

func newBenchRun(mode benchMode, o benchOptions) *benchRun {
	run := strings.ToLower(rand.Text()[:8])
	r := &benchRun{
		benchOptions: o,
		target:       newBenchTarget(o.client.URL(), o.token),
		mark:         "rejoin-bench-" + run,
		began:        time.Now(),
		processes:    withChildren(o.pids),
		feeds:        make([]*benchFeed, o.feedCount),
	}
	if mode.name == "resume" || mode.name == "idle" {
		r.publishers = min(r.publishers, o.feedCount)
	}
	r.inTurn = r.publishers <= o.feedCount
	for i := range r.feeds {
		name := fmt.Sprintf("%s:%s:%d", o.prefix, run, i)
		r.feeds[i] = &benchFeed{index: i, name: name, head: r.target.head("POST", o.peer.published(name))}
	}
	r.result = benchResult{
		Mode: mode.name, Server: o.peer.name, Subscribers: o.subscribers, Feeds: o.feedCount,
		Publishers: r.publishers, Batch: o.batch, Rate: o.rate, Size: o.size, Backlog: o.backlog,
	}
	r.newMeter()
	return r
}

// now is the time since the beginning: clocks that jump do not matter to it.
func (r *benchRun) now() time.Duration { return time.Since(r.began) }

func (r *benchRun) newMeter() *benchMeter {
	m := newBenchMeter(runtime.GOMAXPROCS(0))
	r.meter.Store(m)
	return m
}

// newSubscribers returns n subscribers that are yet to be opened, spread over
// the feeds.
func (r *benchRun) newSubscribers(n int) []*benchSubscriber {
	all := make([]*benchSubscriber, n)
	for i := range all {
		all[i] = &benchSubscriber{run: r, index: i, feed: r.feeds[i%len(r.feeds)]}
		all[i].feed.streams++
	}
	return all
}

// open opens the subscribers and notes what that cost.
func (r *benchRun) open(ctx context.Context, subscribers []*benchSubscriber) error {
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
func (r *benchRun) finish(subscribers []*benchSubscriber) {
	r.unsubscribe(subscribers)
	for _, s := range subscribers {
		r.result.Lost += s.lost()
	}
}

// interruptedWait is how long an interrupted run waits for an answer, or for
// another delivery.
const interruptedWait = 2 * time.Second

// awaitAll waits until the meter has all deliveries that are expected, or until
// nothing has come for so long that they count as lost.
func (r *benchRun) awaitAll(ctx context.Context, m *benchMeter, subscribers int) {
	delivered, quiet := m.delivered(), time.Now()
	for delivered < m.expected.Load() && r.faults.ended.Load() < int64(subscribers) {
		time.Sleep(time.Millisecond) // also when ctx has ended: what is under way may still come
		if n := m.delivered(); n != delivered {
			delivered, quiet = n, time.Now()
		}
		if time.Since(quiet) > r.drain || ctx.Err() != nil && time.Since(quiet) > interruptedWait {
			return
		}
	}
}

func (r *benchRun) fanout(ctx context.Context) error {
	subscribers := r.newSubscribers(r.subscribers)
	if err := r.open(ctx, subscribers); err != nil {
		return err
	}
	defer r.finish(subscribers)
	return r.publishFor(ctx, len(subscribers))
}

func (r *benchRun) publish(ctx context.Context) error {
	if err := r.publishFor(ctx, 0); err != nil {
		return err
	}
	r.checkIDs()
	return nil
}

// publishFor publishes for the duration, after the warm-up, and measures until
// all of it has arrived.
func (r *benchRun) publishFor(ctx context.Context, subscribers int) error {
	publishers := r.publishersOf(r.publishers)
	defer closePublishers(publishers)
	warm := r.meter.Load()
	if err := r.drive(ctx, publishers, benchPlan{rate: r.rate, duration: r.warmup}); err != nil {
		return err
	}
	r.awaitAll(ctx, warm, subscribers)
	if err := ctx.Err(); err != nil {
		return err
	}
	m := r.newMeter()
	watch := r.watch()
	err := r.drive(ctx, publishers, benchPlan{rate: r.rate, duration: r.duration})
	published := r.now() - watch.began
	r.awaitAll(ctx, m, subscribers)
	r.result.take(m, watch.stop(), published, len(r.processes) > 0)
	return err
}

func closePublishers(publishers []*benchPublisher) {
	for _, p := range publishers {
		p.close()
	}
}

// checkIDs counts ids that the publishes were answered with twice, or not at
// all.
func (r *benchRun) checkIDs() {
	if !r.peer.dense || r.faults.failed.Load() > 0 {
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

func (r *benchRun) resume(ctx context.Context) error {
	cursors, err := r.makeBacklog(ctx)
	if err != nil {
		return err
	}
	for _, f := range r.feeds {
		f.streams = 0
	}
	subscribers := r.newSubscribers(r.subscribers)
	for _, s := range subscribers {
		s.cursor, s.after, s.wants = cursors[s.feed.index], before, int64(r.backlog)
	}
	// The server has to be through with the streams that were just closed.
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	m := r.newMeter()
	m.expected.Store(int64(r.backlog) * int64(len(subscribers)))
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
func (r *benchRun) makeBacklog(ctx context.Context) ([]string, error) {
	probes := r.newSubscribers(len(r.feeds))
	for _, p := range probes {
		p.mark = before
	}
	if err := r.subscribe(ctx, probes); err != nil {
		r.unsubscribe(probes)
		return nil, err
	}
	defer r.unsubscribe(probes)
	publishers := r.publishersOf(r.publishers)
	defer closePublishers(publishers)
	m := r.meter.Load()
	if err := r.drive(ctx, publishers, benchPlan{each: before + r.backlog}); err != nil {
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

func (r *benchRun) idle(ctx context.Context) error {
	memory := memoryOf(r.processes)
	subscribers := r.newSubscribers(r.subscribers)
	if err := r.open(ctx, subscribers); err != nil {
		return err
	}
	defer r.finish(subscribers)
	if err := sleep(ctx, r.hold); err != nil {
		return err
	}
	if len(r.processes) > 0 {
		r.result.Memory = new(math.Round(float64(memoryOf(r.processes)-memory) / float64(len(subscribers))))
	}
	publishers := r.publishersOf(r.publishers)
	defer closePublishers(publishers)
	m := r.newMeter()
	watch := r.watch()
	err := r.drive(ctx, publishers, benchPlan{each: 1})
	r.awaitAll(ctx, m, len(subscribers))
	r.result.take(m, watch.stop(), 0, len(r.processes) > 0)
	return err
}

// benchUse is the time that something took.
type benchUse struct{ wall, server, self time.Duration }

// benchWatch measures a stretch of a run.
type benchWatch struct {
	run   *benchRun
	began time.Duration
	use   benchUse
}

func (r *benchRun) watch() *benchWatch {
	return &benchWatch{r, r.now(), benchUse{server: cpuOf(r.processes), self: cpuOf([]int{os.Getpid()})}}
}

func (w *benchWatch) stop() benchUse {
	return benchUse{
		wall:   w.run.now() - w.began,
		server: cpuOf(w.run.processes) - w.use.server,
		self:   cpuOf([]int{os.Getpid()}) - w.use.self,
	}
}

// judge completes the result.
func (r *benchRun) judge(interrupted bool) {
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
	if reached := x.PublishesPerSecond; r.rate > 0 && !interrupted && reached < 0.95*r.rate {
		x.warn("%.0f publishes/s of %.0f: the server, or its %d publishers, did not keep the rate", reached, r.rate, x.Publishers)
	}
}
