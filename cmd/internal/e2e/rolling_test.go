package e2e

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/verify"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/storage/testserver"
)

var rollingSubscribers = flag.Int("rolling-subscribers", 200, "how many subscribers TestRollingRestart has")

// rolling is a rolling restart under load.
type rolling struct {
	*cluster
	t         *testing.T
	addresses []string
	ingress   *ingress
	recording *feedtest.Recording
	counts    verify.Counts
	feeds     []string
	sources   []*recordedSource
	followers []*verify.Subscriber
	work      sync.WaitGroup

	mu     sync.Mutex
	failed []error
}

// TestRollingRestart restarts three nodes one after the other, behind an nginx that
// sends new requests only to nodes that are ready, as a deployment does. Every kind of
// client that there is gets every event, once, and none meets an answer that would stop
// it. Every publish succeeds, if it is repeated with its key. It is larger with
// -rolling-subscribers 5000.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	r := &rolling{cluster: newCluster(t), t: t, recording: feedtest.NewRecording(), feeds: []string{"roll-a", "roll-b", "roll-c"}}
	for range 3 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(testserver.FreePort(t)))
		r.addresses = append(r.addresses, address)
		r.nodes = append(r.nodes, r.startAt(address))
	}
	r.ingress = startIngress(t, 50*time.Millisecond, r.addresses...)

	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); r.work.Wait() })
	r.subscribe(ctx, *rollingSubscribers)
	nodes := followWithNode(t, r.ingress.url+"/v1/feeds/roll-node/events", r.ingress.url+"/v1/feeds/roll-node/events")
	stop := r.publish(ctx)
	for i, address := range r.addresses {
		if err := r.nodes[i].terminate(); err != nil {
			t.Errorf("node %d ended with %v:\n%s", i, err, r.nodes[i].log)
		}
		r.nodes[i] = r.startAt(address)
		r.ingress.await(len(r.nodes))
	}
	published := stop()

	collector := verify.Collector{
		Clients: r.clients(), Feeds: r.feeds, Subscribers: r.followers,
		Recording: r.recording, Patience: time.Minute,
	}
	if err := collector.Collect(t.Context()); err != nil {
		t.Error(err)
	}
	nodes.awaitEvents(published)
	r.awaitSources()
	cancel()
	r.work.Wait()
	r.judge()
}

func (r *rolling) startAt(address string) *process {
	r.t.Helper()
	p := serveAt(r.t, built(r.t, true), address, r.store, r.bus(), "REJOIN_DRAIN_DELAY=500ms", "REJOIN_DRAIN_WINDOW=1s", "REJOIN_SUBSCRIBE_RETRY=300ms")
	p.awaitReady()
	return p
}

func (r *rolling) clients() []*client.Client { return []*client.Client{clientOf(r.t, r.ingress.url)} }

func (r *rolling) fail(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, err)
}

// subscribe starts n subscribers: of 20, one follows all feeds with feed/client, two
// follow one with it, one reads pages that wait, and the others do what a browser does.
func (r *rolling) subscribe(ctx context.Context, n int) {
	for i := range n {
		log := func(kind string) *feedtest.DeliveryLog {
			return r.recording.Client(fmt.Sprintf("%s %d", kind, i), false)
		}
		one := r.feeds[i%len(r.feeds)]
		follower := &verify.Subscriber{
			Feeds: []string{one}, Clients: r.clients(), Random: rand.New(rand.NewPCG(1, uint64(i))),
			Silence: 20 * time.Second, Counts: &r.counts,
		}
		switch i % 20 {
		case 0:
			follower.Log, follower.Feeds = log("all feeds"), r.feeds
		case 1, 2:
			follower.Log = log("follower")
		case 3:
			follower.Log = log("pages")
			follower.At = make([]feed.ID, 1)
			p := &pager{Subscriber: follower, name: one, waits: true}
			r.work.Go(func() { r.fail(p.run(ctx, p.forward)) })
			r.followers = append(r.followers, follower)
			continue
		default:
			s := newRecordedSource(r.ingress.url, one, log("browser"))
			r.work.Go(func() { s.run(ctx) })
			r.sources = append(r.sources, s)
			continue
		}
		r.work.Go(func() { r.fail(follower.Run(ctx)) })
		r.followers = append(r.followers, follower)
	}
}

// publish publishes to all feeds, the slower the more subscribers there are beyond a
// thousand. It returns a function that ends it and returns how many events the feed of
// Node's clients has.
func (r *rolling) publish(ctx context.Context) (stop func() (events int)) {
	publishing, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	pause := 60 * time.Millisecond * time.Duration(max(*rollingSubscribers, 1000)) / 1000
	for i := range 3 {
		p := &verify.Publisher{
			Recording: r.recording, Name: fmt.Sprintf("publisher-%d", i), Feeds: r.feeds, Clients: r.clients(),
			Random: rand.New(rand.NewPCG(2, uint64(i))), Pause: pause, Attempt: 5 * time.Second, Patience: time.Minute, Counts: &r.counts,
		}
		work.Go(func() { r.fail(p.Run(publishing, ctx)) })
	}
	// Node's clients print events without a type only.
	events := 0
	work.Go(func() {
		for publishing.Err() == nil {
			_, err := r.clients()[0].Publish(ctx, client.Publication{Feed: "roll-node", Drafts: []feed.Draft{{Data: fmt.Sprint("event ", events+1)}}})
			if err != nil {
				r.fail(err)
				return
			}
			events++
			_ = sleep(publishing, 30*time.Millisecond) // the loop looks at it
		}
	})
	return func() int { cancel(); work.Wait(); return events }
}

// awaitSources waits until the sources have what the feeds hold.
func (r *rolling) awaitSources() {
	r.t.Helper()
	for _, s := range r.sources {
		last := r.recording.First(s.feed) + feed.ID(len(r.recording.All(s.feed))) - 1
		for deadline := time.Now().Add(30 * time.Second); s.log.Reached(s.feed) < last && time.Now().Before(deadline); {
			time.Sleep(5 * time.Millisecond) // until it has come back; the judge says if not
		}
	}
}

func (r *rolling) judge() {
	r.t.Helper()
	for _, err := range r.failed {
		r.t.Error(err)
	}
	connections := int(r.counts.Connections.Load())
	for _, s := range r.sources {
		if s.finished != 0 {
			r.t.Errorf("an EventSource has stopped for good: %v", s)
		}
		connections += s.opened
	}
	report := r.recording.Judge()
	for _, f := range report.Findings {
		r.t.Error(f)
	}
	r.t.Logf("%d subscribers, %d connections, %d events, %d deliveries, %d reloads of nginx, in health %v at most for 99 of 100",
		report.Clients, connections, report.Acknowledged, report.Deliveries, r.ingress.reloads.Load(), report.Health.Quantile(0.99))
	if report.Unknown > 0 || report.Violations > 0 {
		r.t.Errorf("%d events were not acknowledged in the end, %d promises were broken", report.Unknown, report.Violations)
	}
	if connections < 2*report.Clients || report.Acknowledged < 20 || int(r.ingress.reloads.Load()) < 2*len(r.addresses) {
		r.t.Error("nothing was tried")
	}
}

// recordedSource is an eventSource whose deliveries are recorded.
type recordedSource struct {
	*eventSource
	feed string
	log  *feedtest.DeliveryLog
}

func newRecordedSource(url, name string, log *feedtest.DeliveryLog) *recordedSource {
	s := &recordedSource{feed: name, log: log}
	cursor := func() feed.ID {
		id, _ := strconv.ParseUint(s.lastID, 10, 64) // empty before the first
		return feed.ID(id)
	}
	s.eventSource = &eventSource{
		from: "0",
		url: func() string {
			now := time.Now()
			log.Connects(now)
			log.Asks(name, cursor(), now)
			return url + "/v1/feeds/" + name + "/events"
		},
		take: func(b rawBlock) {
			switch {
			case b.kind == "feed.open":
				log.Opened(name, cursor(), time.Now())
			case strings.HasPrefix(b.kind, "feed.") && b.kind != "feed.cursor":
				log.Broke("there is a "+b.kind+": "+b.data, time.Now())
			case b.kind != "feed.cursor":
				log.Delivered(name, cursor(), feedtest.SumOf(b.kind, b.data), time.Now())
			}
		},
		ended: func(err error) {
			log.Cut(time.Now())
			if err == nil {
				log.Broke("a stream has ended as if it were complete", time.Now())
			}
		},
	}
	return s
}
