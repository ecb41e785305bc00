// Package verify tries to catch a deployment losing, repeating or reordering
// events: it publishes, follows over connections that it cuts time and again,
// records both, and has a judge compare them with what the servers hold.
package verify

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	random "math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/reach"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// Options are the size of a verification.
type Options struct {
	Servers     []string // addresses of nodes or proxies of one deployment, as [client.New] takes them
	Token       string   // empty where none is asked for
	Prefix      string   // of the names of the feeds
	Feeds       int
	Subscribers int           // one in four follows all feeds over one connection
	Rate        int           // events a second, about
	Duration    time.Duration // of publishing
	Patience    time.Duration // for all events to be known and to arrive after that
	Notes       io.Writer     // gets progress, and why something is left behind
}

// verification is one run.
type verification struct {
	Options
	pattern   string // of the feeds of this run
	collector *Collector
	publish   []*Publisher
	counts    Counts
	began     time.Time
	took      time.Duration // of publishing
	left      string        // why the feeds are still there; empty if they are not
}

// Run publishes and follows for the time in o, or until ctx ends, and judges
// what happened. An error means that there is no verdict.
func Run(ctx context.Context, o Options) (*Report, error) {
	v, err := newVerification(o)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	if err := reach.Any(ctx, v.collector.Clients); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted before a server answered")
		}
		return nil, fmt.Errorf("verify: %w", err)
	}
	v.began = time.Now()
	settling, stopSettling := v.settling(ctx)
	defer stopSettling()
	err = v.work(ctx, settling)
	deletePatience := 30 * time.Second
	if settling.Err() != nil {
		err, deletePatience = errors.New("interrupted, and what was under way did not arrive in time: there is no verdict"), time.Second
	}
	v.delete(context.WithoutCancel(ctx), deletePatience)
	if err != nil {
		return nil, fmt.Errorf("verify: %w", err)
	}
	return v.report(v.collector.Recording.Judge()), nil
}

// runLength is the length of the text that tells the feeds of one run from those
// of another.
const runLength = 10

// LongestName returns a name as long as the longest that a run gives to a feed.
func LongestName(o Options) string {
	return fmt.Sprintf("%s:%s:%d", o.Prefix, strings.Repeat("x", runLength), o.Feeds)
}

func newVerification(o Options) (*verification, error) {
	run := o.Prefix + ":" + strings.ToLower(rand.Text()[:runLength]) + ":"
	v := &verification{Options: o, pattern: run + "*", collector: &Collector{Recording: feedtest.NewRecording(), Patience: o.Patience}}
	v.collector.Recording.Retention = true // the deployment may have rules of its own
	for i := range o.Feeds {
		v.collector.Feeds = append(v.collector.Feeds, fmt.Sprintf("%s%d", run, i+1))
	}
	var err error
	if v.collector.Clients, err = v.connect(client.NewTransport()); err != nil {
		return nil, err
	}
	if v.publish, err = v.publishers(); err != nil {
		return nil, err
	}
	for i := range o.Subscribers {
		s, err := v.subscriber(i)
		if err != nil {
			return nil, err
		}
		v.collector.Subscribers = append(v.collector.Subscribers, s)
	}
	return v, nil
}

// work publishes until ctx ends or the time is over, and returns when all of it
// has arrived, or patience has ended.
func (v *verification) work(ctx, settling context.Context) error {
	publishing, stopPublishing := context.WithTimeout(ctx, v.Duration)
	defer stopPublishing()
	following, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFollowing()
	// Whatever ends one of them ends the publishing.
	var publishers, followers workers
	for _, p := range v.publish {
		publishers.start(func() error { defer stopPublishing(); return p.Run(publishing, settling) })
	}
	for _, s := range v.collector.Subscribers {
		followers.start(func() error { defer stopPublishing(); return s.Run(following) })
	}
	stopProgress := v.progress()
	err := publishers.wait()
	v.took = time.Since(v.began)
	if err == nil {
		err = v.collector.Collect(settling)
	}
	stopProgress()
	stopFollowing()
	return errors.Join(err, followers.wait())
}

// workers are goroutines of which the first error counts.
type workers struct {
	running sync.WaitGroup
	failed  sync.Once
	err     error
}

func (w *workers) start(work func() error) {
	w.running.Go(func() {
		if err := work(); err != nil {
			w.failed.Do(func() { w.err = err })
		}
	})
}

func (w *workers) wait() error {
	w.running.Wait()
	return w.err
}

// interruptPatience is how long what is under way may take once a verification
// has been interrupted.
const interruptPatience = 10 * time.Second

// settling returns the context of all that comes after the publishing. It
// outlives ctx for as long as a verdict can still be hoped for.
func (v *verification) settling(ctx context.Context) (settling context.Context, stop func()) {
	settling, cancel := context.WithCancel(context.WithoutCancel(ctx))
	forget := context.AfterFunc(ctx, func() {
		v.note("interrupted: waiting for what is under way; another interrupt ends it at once")
		time.AfterFunc(interruptPatience, cancel)
		for reach.Any(settling, v.collector.Clients) == nil && sleep(settling, time.Second/2) == nil {
		}
		cancel()
	})
	return settling, func() { forget(); cancel() }
}

// publishers returns publishers that share the rate.
func (v *verification) publishers() (all []*Publisher, err error) {
	const most = 16
	count := min(most, v.Rate, max(4, v.Rate/20))
	clients, err := v.connect(client.NewTransport())
	for i := range count {
		all = append(all, &Publisher{
			Recording: v.collector.Recording, Name: fmt.Sprintf("publisher-%d", i+1), Feeds: v.collector.Feeds, Clients: clients,
			Random: newRandom(), Pause: time.Second * time.Duration(count) / time.Duration(v.Rate),
			Attempt: 10 * time.Second, Patience: v.Patience, Large: 0.02, Again: 0.05, Twice: 0.05, Counts: &v.counts,
		})
	}
	return all, err
}

func newRandom() *random.Rand { return random.New(random.NewPCG(random.Uint64(), random.Uint64())) }

// subscriber returns the ith subscriber: of one feed or of all of them, over
// HTTP/1.1 or over what the server offers, and more or less steady.
func (v *verification) subscriber(i int) (*Subscriber, error) {
	all := v.collector.Feeds
	names := all[i%len(all) : i%len(all)+1]
	if i%4 == 3 {
		names = all
	}
	habits := []Habits{
		{Cut: 20 * time.Second},
		{Cut: 3 * time.Second, Wait: time.Second, Envelope: true},
		{Cut: 5 * time.Second, Old: 0.5, Wait: time.Second},
		{Cut: 8 * time.Second, Wait: 4 * time.Second},
		{Cut: 15 * time.Second, Stall: 2 * time.Second},
	}[i%5]
	random, transport := newRandom(), client.NewTransport()
	if i%2 == 0 {
		withoutHTTP2(transport)
	}
	clients, err := v.connect(&CursorAnywhere{transport, random})
	return &Subscriber{
		Log:   v.collector.Recording.Client(fmt.Sprintf("subscriber %d", i+1), habits.Stall > 0),
		Feeds: names, Clients: clients,
		Random: random, Habits: habits, Silence: 30 * time.Second, Counts: &v.counts,
	}, err
}

// connect returns clients of the servers.
func (v *verification) connect(transport http.RoundTripper) (all []*client.Client, err error) {
	for _, server := range v.Servers {
		c, err := client.New(server, client.Options{Token: v.Token, Transport: transport})
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// withoutHTTP2 makes a transport speak HTTP/1.1 alone.
func withoutHTTP2(transport *http.Transport) {
	transport.ForceAttemptHTTP2 = false
	transport.TLSNextProto = make(map[string]func(string, *tls.Conn) http.RoundTripper)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
}

// delete deletes the feeds, and notes why they are left if it may not.
func (v *verification) delete(ctx context.Context, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, name := range v.collector.Feeds {
		if err := v.deleteOne(ctx, name); err != nil {
			v.left = reach.Reason(err)
			v.note("the feeds %s are left: %s", v.pattern, v.left)
			return
		}
	}
}

func (v *verification) deleteOne(ctx context.Context, name string) (err error) {
	for _, c := range v.collector.Clients {
		req, err2 := http.NewRequestWithContext(ctx, http.MethodDelete, c.URL("v1", "feeds", name).String(), nil)
		if err2 != nil {
			return err2
		}
		resp, err2 := c.HTTP().Do(req)
		if err = err2; err != nil {
			continue // another may be up
		}
		if resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotFound {
			resp.Body.Close()
			return nil
		}
		err = client.ReadProblem(resp)
		_, _ = io.Copy(io.Discard, resp.Body) // the connection may carry the next
		resp.Body.Close()
	}
	return err
}

// progress notes every few seconds how far it has got, until it is stopped.
func (v *verification) progress() (stop func()) {
	ticker := time.NewTicker(5 * time.Second)
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ticker.C:
				v.note("%v: %d events acknowledged in %d attempts, %d deliveries over %d connections", time.Since(v.began).Round(time.Second),
					v.counts.Acknowledged.Load(), v.counts.Attempts.Load(), v.counts.Delivered.Load(), v.counts.Connections.Load())
			case <-ended:
				return
			}
		}
	}()
	return func() { ticker.Stop(); close(ended); <-done }
}

func (v *verification) note(format string, args ...any) {
	_, _ = fmt.Fprintf(v.Notes, "rejoin: "+format+"\n", args...) // notes are a courtesy
}

// sleep waits for d, or until ctx ends: then it returns ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
