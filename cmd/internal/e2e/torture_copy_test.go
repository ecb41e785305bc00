package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/verify"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/storage/testserver"
)

// copyBlow copies the database as it is, and starts a node on the copy: on the
// same Redis, if there is one, with the same prefix, as somebody does who tries an
// upgrade or a backup out. What is published to the copy is published to feeds of the same
// names, under the ids that the original gives as well. Neither side may ever
// see what the other was sent.
var copyBlow = blow{
	name: "postgres copied, and a node on the copy", target: "postgres", bound: boundStore, stops: true,
	lay: func(w *tortureWorld, d time.Duration, random *rand.Rand) {
		c, err := w.copyStore()
		if err != nil {
			w.t.Errorf("copy the database: %v", err)
			return
		}
		defer c.drop()
		if err := c.live(d, random); err != nil {
			w.now.found("on the copy: %v", err)
		}
	},
}

const copyPublishers = 6

// storeCopy is a copy of the cluster's database, and the node on it.
type storeCopy struct {
	world *tortureWorld
	name  string // of the database
	node  *tortureNode
	seen  *feedtest.Recording
}

// copyStore copies the database, as it is at one instant. Postgres wants it to
// itself for that.
func (w *tortureWorld) copyStore() (*storeCopy, error) {
	store, err := url.Parse(w.database)
	if err != nil {
		return nil, err
	}
	original := strings.TrimPrefix(store.Path, "/")
	c := &storeCopy{world: w, name: fmt.Sprintf("%s_copy_%d", original, w.ran), seen: feedtest.NewRecording()}
	admin := func(sql string) { w.postgres.Exec(w.t, "postgres", sql) }
	admin("ALTER DATABASE " + original + " ALLOW_CONNECTIONS false")
	admin("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '" + original + "'")
	admin("CREATE DATABASE " + c.name + " TEMPLATE " + original)
	admin("ALTER DATABASE " + original + " ALLOW_CONNECTIONS true")
	admin("ALTER DATABASE " + c.name + " ALLOW_CONNECTIONS true")
	// What is queued here would be numbered there as well, as it should be.
	w.postgres.Exec(w.t, c.name, "TRUNCATE rejoin.queue, rejoin.queue_places")
	bus := "postgres"
	if len(w.redis) > 0 {
		bus = "redis://" + w.redis[0].Addr() + "/0"
	}
	at := "127.0.0.1:" + strconv.Itoa(testserver.FreePort(w.t))
	c.node = &tortureNode{
		world: w, address: at, url: &url.URL{Scheme: "http", Host: at},
		store: w.postgres.URL(c.name), bus: bus, env: []string{"REJOIN_AUTH_MODE=none"},
	}
	return c, nil
}

func (c *storeCopy) drop() {
	if p := c.node.running(); p != nil && !ended(p) {
		p.kill()
	}
	c.world.postgres.Exec(c.world.t, "postgres", "DROP DATABASE IF EXISTS "+c.name+" WITH (FORCE)")
}

// live publishes to the copy and follows it, beside the original, and has a
// judge of its own look at that.
func (c *storeCopy) live(d time.Duration, random *rand.Rand) error {
	s := c.world.now
	c.node.start()
	if !c.node.ready(bound(boundStore)) {
		return fmt.Errorf("the node does not become ready:\n%s", c.node.running().log)
	}
	ctx, cancel := context.WithTimeout(context.Background(), tortureArrives*slower())
	defer cancel()
	var counts verify.Counts
	v := &verify.Collector{
		Clients: s.clientsOf(clientHTTP1, []*url.URL{c.node.url}), Feeds: slices.Concat(s.feeds, s.quiet, s.wide), Recording: c.seen, Patience: tortureArrives * slower(),
	}
	defer hangUp(v.Clients)
	if err := c.inherit(ctx, v); err != nil {
		return err
	}
	var publishers, followers sync.WaitGroup
	publishing, stop := context.WithTimeout(ctx, d+time.Second)
	defer stop()
	for i := range copyPublishers {
		// Where the original gets few events, ids are the same for longest.
		p := &verify.Publisher{
			Recording: c.seen, Name: fmt.Sprintf("copy-publisher-%d", i), Feeds: [][]string{s.feeds, s.quiet, s.wide}[i%3], Clients: s.clientsOf(clientHTTP1, []*url.URL{c.node.url}),
			Random: rand.New(rand.NewPCG(random.Uint64(), uint64(i))), Pause: 25 * time.Millisecond * slower(),
			Attempt: 3 * time.Second, Patience: v.Patience, Counts: &counts,
		}
		publishers.Go(func() {
			defer hangUp(p.Clients)
			if err := p.Run(publishing, context.WithoutCancel(publishing)); err != nil {
				s.found("on the copy, %s: %v", p.Name, err)
			}
		})
	}
	following, leave := context.WithCancel(ctx)
	defer leave()
	for i, names := range [][]string{s.feeds, s.quiet, s.feeds[:1], s.feeds[1:2]} {
		own := rand.New(rand.NewPCG(random.Uint64(), uint64(i)))
		w := &verify.Subscriber{
			Log: c.seen.Client(fmt.Sprintf("subscriber %d of the copy", i), true), Feeds: names, Clients: s.subscriberOf(clientHTTP1, []*url.URL{c.node.url}, own),
			Random: own, Strict: true, Ephemeral: true, Silence: 7 * time.Second * slower(), Counts: &counts,
		}
		v.Subscribers = append(v.Subscribers, w)
		followers.Go(func() {
			defer hangUp(w.Clients)
			if err := w.Run(following); err != nil {
				s.found("on the copy, a subscriber: %v", err)
			}
		})
	}
	publishers.Wait()
	err := v.Collect(ctx)
	leave()
	followers.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copies = append(s.copies, c)
	return err
}

// inherit enters what the copy begins with, as if it had been published to it.
func (c *storeCopy) inherit(ctx context.Context, v *verify.Collector) error {
	for _, name := range v.Feeds {
		begun := feedtest.NewRecording()
		if _, err := verify.Holdings(ctx, v.Clients[0], name, begun); err != nil {
			return fmt.Errorf("read what the copy of %s begins with: %w", name, err)
		}
		for id, sum := range begun.All(name) {
			c.seen.Attempted(feedtest.Attempt{
				Feed: name, Key: fmt.Sprintf("inherited-%d", id), Sum: sum, Outcome: feedtest.Acknowledged, ID: id, At: time.Now(),
			})
		}
		if first := begun.First(name); first > 1 {
			c.seen.Trimmed(feedtest.Trim{Feed: name, Before: first})
		}
	}
	return nil
}

// report takes over what the judge of the copy finds, now that all is known of
// both.
func (c *storeCopy) report(original *feedtest.Recording) {
	original.Elsewhere(c.seen)
	c.seen.Elsewhere(original)
	r := c.seen.Judge()
	for _, f := range r.Findings[:min(len(r.Findings), 10)] { // they are much alike
		f.Client = strings.TrimPrefix(f.Client+", on the copy of the database", ", ")
		original.Found(f)
	}
	if r.Acknowledged == 0 || r.Deliveries == 0 {
		original.Found(feedtest.Finding{Kind: "bad node", Detail: "nothing was published to the copy, or delivered from it"})
	}
}
