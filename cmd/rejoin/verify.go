package main

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
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
	"github.com/rejoin/rejoin/feed/feedtest"
)

func newVerifyCommand() *cobra.Command {
	v := &verification{}
	cmd := &cobra.Command{
		Use:   "verify --url URL [--url URL]...",
		Short: "Try to catch a deployment losing, repeating or reordering events",
		Long: `Verify publishes to feeds of its own, with unique names, and follows them with
subscribers whose connections it cuts time and again. Each attempt and each
connection uses any of the URLs. In the end verify compares the acknowledgements,
the events that each subscriber received on each connection, and the content of
the server. It fails if an event was lost, repeated, out of order, or different
from the published one.

Break things meanwhile: kill nodes, restart Redis and Postgres. A delay is no
failure, as long as everything has arrived --patience after the end. At the start
one server must answer.

An interrupt ends the publishing. Events in progress then have 10 seconds to
arrive, and verify judges them. If no server answers any more, it gives no verdict.

At the end verify deletes its feeds, if the token in REJOIN_TOKEN allows that. The
token must allow publishing to and reading the feeds that begin with --prefix.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if v.clients, err = newClients(v.servers, client.NewTransport()); err != nil {
				return err
			}
			if err := v.check(); err != nil {
				return err
			}
			v.out, v.notes = cmd.OutOrStdout(), cmd.ErrOrStderr()
			return v.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&v.servers, "url", []string{defaultURL}, "a server; repeat the flag for more nodes or proxies of one deployment")
	flags.IntVar(&v.feeds, "feeds", 5, "how many feeds")
	flags.IntVar(&v.subscribers, "subscribers", 12, "how many subscribers; one in four follows all the feeds over one connection")
	flags.IntVar(&v.rate, "rate", 50, "about how many events to publish a second")
	flags.DurationVar(&v.lasts, "for", time.Minute, "how long to publish")
	flags.DurationVar(&v.patience, "patience", time.Minute, "how long everything may take to arrive after the publishing")
	flags.StringVar(&v.prefix, "prefix", "rejoin-verify", "the beginning of the names of the feeds")
	flags.BoolVar(&v.json, "json", false, "print the report as JSON")
	return cmd
}

// verification is one run of rejoin verify.
type verification struct {
	servers                  []string // addresses
	feeds, subscribers, rate int
	lasts, patience          time.Duration
	prefix                   string // in the end with what makes it this run's
	json                     bool
	out, notes               io.Writer

	clients   []*client.Client // one a server, for what is neither published nor followed
	recording *feedtest.Recording
	names     []string
	witnesses []*witness
	counts    proofCounts
	began     time.Time
	took      time.Duration // of publishing
	left      string        // why the feeds are still there; empty if they are not
}

func (v *verification) check() error {
	switch {
	case v.feeds < 1 || v.feeds > 100:
		return usageError{errors.New("--feeds: 1 to 100")}
	case v.subscribers < 1 || v.subscribers > 10_000:
		return usageError{errors.New("--subscribers: 1 to 10000")}
	case v.rate < 1 || v.rate > 10_000:
		return usageError{errors.New("--rate: 1 to 10000")}
	case v.lasts < time.Second:
		return usageError{errors.New("--for: at least 1s")}
	case v.patience < time.Second:
		return usageError{errors.New("--patience: at least 1s")}
	}
	v.prefix += ":" + strings.ToLower(rand.Text()[:10]) + ":"
	for i := range v.feeds {
		v.names = append(v.names, fmt.Sprintf("%s%d", v.prefix, i+1))
	}
	for _, name := range v.names {
		if err := feed.CheckName(name); err != nil {
			return usageError{fmt.Errorf("--prefix: %w", err)}
		}
	}
	return nil
}

// run publishes and follows for the time that was asked for, or until it is
// interrupted, and judges what happened.
func (v *verification) run(ctx context.Context) error {
	v.recording = feedtest.NewRecording()
	if err := knock(ctx, v.clients); err != nil {
		if ctx.Err() != nil {
			err = errors.New("interrupted before a server answered")
		}
		return fmt.Errorf("verify: %w", err)
	}
	v.began = time.Now()
	v.recording.Retention = true // the deployment may have rules of its own
	publishing, stopPublishing := context.WithTimeout(ctx, v.lasts)
	defer stopPublishing()
	following, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFollowing()
	settling, stopSettling := v.settling(ctx)
	defer stopSettling()
	// Whatever ends one of them for good ends the run.
	fail := func(err error) error {
		stopPublishing()
		return err
	}
	var publishers, followers errgroup.Group
	for _, p := range v.provers() {
		publishers.Go(func() error { return fail(p.run(publishing, settling)) })
	}
	for i := range v.subscribers {
		w := v.witness(i)
		v.witnesses = append(v.witnesses, w)
		followers.Go(func() error { return fail(w.run(following)) })
	}
	stopProgress := v.progress()
	err := publishers.Wait()
	v.took = time.Since(v.began)
	if err == nil {
		err = v.collect(settling)
	}
	stopProgress()
	stopFollowing()
	err = errors.Join(err, followers.Wait())
	deletePatience := 30 * time.Second
	if settling.Err() != nil {
		err, deletePatience = errors.New("interrupted, and what was under way did not arrive in time: there is no verdict"), time.Second
	}
	v.delete(context.WithoutCancel(ctx), deletePatience)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	return v.report(v.recording.Judge())
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
		for knock(settling, v.clients) == nil && sleep(settling, time.Second/2) == nil {
		}
		cancel()
	})
	return settling, func() { forget(); cancel() }
}

// provers share the rate.
func (v *verification) provers() (all []*prover) {
	const most = 16
	count := min(most, v.rate, max(4, v.rate/20))
	clients := v.connect(client.NewTransport())
	for i := range count {
		all = append(all, &prover{
			recording: v.recording, name: fmt.Sprintf("publisher-%d", i+1), feeds: v.names, clients: clients,
			random: newRandom(), pause: time.Second * time.Duration(count) / time.Duration(v.rate),
			attempt: 10 * time.Second, patience: v.patience, large: 0.02, again: 0.05, twice: 0.05, counts: &v.counts,
		})
	}
	return all
}

func newRandom() *random.Rand { return random.New(random.NewPCG(random.Uint64(), random.Uint64())) }

// witness makes a subscriber: of one feed or of all of them, over HTTP/1.1 or
// over what the server offers, and more or less steady.
func (v *verification) witness(i int) *witness {
	names := v.names[i%len(v.names) : i%len(v.names)+1]
	if i%4 == 3 {
		names = v.names
	}
	manners := []habits{
		{cut: 20 * time.Second},
		{cut: 3 * time.Second, wait: time.Second, envelope: true},
		{cut: 5 * time.Second, old: 0.5, wait: time.Second},
		{cut: 8 * time.Second, wait: 4 * time.Second},
		{cut: 15 * time.Second, stall: 2 * time.Second},
	}[i%5]
	random, transport := newRandom(), client.NewTransport()
	if i%2 == 0 {
		withoutHTTP2(transport)
	}
	return &witness{
		log:   v.recording.Client(fmt.Sprintf("subscriber %d", i+1), manners.stall > 0),
		feeds: names, clients: v.connect(&cursorAnywhere{transport, random}),
		random: random, habits: manners, silence: 30 * time.Second, counts: &v.counts,
	}
}

// connect returns clients of the servers.
func (v *verification) connect(transport http.RoundTripper) []*client.Client {
	clients, err := newClients(v.servers, transport)
	if err != nil {
		panic(err) // v.clients were made of the same addresses
	}
	return clients
}

// withoutHTTP2 makes a transport speak HTTP/1.1 alone.
func withoutHTTP2(transport *http.Transport) {
	transport.ForceAttemptHTTP2 = false
	transport.TLSNextProto = make(map[string]func(string, *tls.Conn) http.RoundTripper)
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
}

// progress says every few seconds how far it has got, until it is stopped.
func (v *verification) progress() (stop func()) {
	ticker := time.NewTicker(5 * time.Second)
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ticker.C:
				v.note("%v: %d events acknowledged in %d attempts, %d deliveries over %d connections", time.Since(v.began).Round(time.Second),
					v.counts.acknowledged.Load(), v.counts.attempts.Load(), v.counts.delivered.Load(), v.counts.connections.Load())
			case <-ended:
				return
			}
		}
	}()
	return func() { ticker.Stop(); close(ended); <-done }
}

func (v *verification) note(format string, args ...any) {
	_, _ = fmt.Fprintf(v.notes, "rejoin: "+format+"\n", args...) // notes are a courtesy
}
