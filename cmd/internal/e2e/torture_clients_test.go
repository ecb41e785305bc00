package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/verify"
	"github.com/rejoin/rejoin/feed/client"
)

const torturePublishers = 12

// tortureTypes are the types of the events; half of those on the busy feeds have
// none.
var tortureTypes = []string{"", "proof.lines", "proof.batch"}

// startPublishers returns a function that has the publishers end and waits
// until the outcome of all that they published is known.
func (s *schedule) startPublishers() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	busy := torturePublishers
	if !judgesLatency() {
		busy /= 2
	}
	for i := range busy {
		p := s.publisher(i, s.feeds)
		s.publishing(p.Clients, func() error { return p.Run(ctx, context.WithoutCancel(ctx)) })
	}
	slow := s.publisher(150, s.wide)
	slow.Pause *= 3
	s.publishing(slow.Clients, func() error { return slow.Run(ctx, context.WithoutCancel(ctx)) })
	// What is lost on the way with nothing behind it shows in no id.
	for i, name := range s.quiet {
		p := s.publisher(torturePublishers+i, []string{name})
		at := tortureHealth + time.Duration(s.random.Int64N(int64(tortureOverlay+tortureLongest)))
		s.publishing(p.Clients, func() error {
			if sleep(ctx, at) != nil {
				return nil // it is over sooner than it could have been
			}
			return p.Publish(ctx, 1)
		})
	}
	s.startBatches(ctx)
	s.startWriters(ctx)
	s.startClosers(ctx)
	s.startWhisperers(ctx)
	s.publishers.Go(func() { s.shared.resetNowAndThen(ctx, rand.New(rand.NewPCG(s.seed, 4))) })
	s.publish = ctx
	return func() { cancel(); s.publishers.Wait() }
}

// publishing runs a publisher.
func (s *schedule) publishing(clients []*client.Client, run func() error) {
	s.publishers.Go(func() {
		defer hangUp(clients)
		if err := run(); err != nil {
			s.found("a publisher: %v", err)
		}
	})
}

// publisher makes the publisher number i.
func (s *schedule) publisher(i int, feeds []string) *verify.Publisher {
	return &verify.Publisher{
		Recording: s.recording, Name: fmt.Sprintf("publisher-%d", i), Feeds: feeds, Clients: s.clientsOf([]int{clientHTTP1, clientHTTP2, clientShared}[i/3%3], s.urls()),
		Random: rand.New(rand.NewPCG(s.seed, 100+uint64(i))), Pause: 35 * time.Millisecond * slower(),
		// Some wait for the answer, some ask another node before it comes.
		Attempt: time.Duration(800+1600*(i%3)) * time.Millisecond * slower(), Patience: tortureArrives * slower(),
		Large: 0.15, Again: 0.1, Twice: 0.1, GiveUp: 0.3, Counts: &s.counts,
	}
}

// tortureKind is a kind of subscribers.
type tortureKind struct {
	name   string
	count  int
	client int
	follow tortureFollow
	wide   int // how many of the wide feeds it follows, if it does
	slow   bool
	habits verify.Habits
}

// tortureFollow is which feeds a subscriber follows.
type tortureFollow int

const (
	followsOne     tortureFollow = iota // of the busy feeds
	followsBusy                         // all of them, over one connection
	followsQuiet                        // all those in which little happens
	followsWide                         // so many of the wide ones
	followsWritten                      // those that applications write to in SQL
	followsClosing                      // one of those that get closed
	followsAllClosing
	followsEnding // one that gets closed beside the busy ones
)

var tortureKinds = []tortureKind{
	{name: "steady", count: 5},
	{name: "on quiet feeds", count: 3, follow: followsQuiet},
	{name: "on quiet feeds, sharing", count: 2, follow: followsQuiet, client: clientShared},
	{name: "steady, in envelopes", count: 2, habits: verify.Habits{Envelope: true}},
	{name: "steady, HTTP/2", count: 2, client: clientHTTP2},
	{name: "steady, sharing", count: 4, client: clientShared},
	{name: "slow", count: 3, client: clientNarrow, slow: true, habits: verify.Habits{Pause: 150 * time.Millisecond}},
	{name: "slow, HTTP/2", count: 1, client: clientHTTP2, slow: true, habits: verify.Habits{Pause: 100 * time.Millisecond}},
	{name: "slow, with small windows", count: 2, client: clientHTTP2Narrow, slow: true, habits: verify.Habits{Pause: 100 * time.Millisecond}},
	{name: "slow, sharing", count: 1, client: clientShared, slow: true, habits: verify.Habits{Pause: 150 * time.Millisecond}},
	{name: "stalling", count: 2, client: clientNarrow, slow: true, habits: verify.Habits{Stall: 3500 * time.Millisecond}},
	{name: "stalling, with small windows", count: 2, client: clientHTTP2Narrow, slow: true, habits: verify.Habits{Stall: 3500 * time.Millisecond}},
	{name: "stalling, sharing", count: 2, client: clientShared, slow: true, habits: verify.Habits{Stall: 3500 * time.Millisecond}},
	{name: "stalling, in envelopes", count: 1, client: clientNarrow, slow: true, habits: verify.Habits{Stall: 3500 * time.Millisecond, Envelope: true}},
	{name: "reconnecting", count: 4, habits: verify.Habits{Cut: 500 * time.Millisecond, Wait: 200 * time.Millisecond}},
	{name: "reconnecting, in envelopes", count: 2, habits: verify.Habits{Cut: 500 * time.Millisecond, Old: 0.3, Wait: 200 * time.Millisecond, Envelope: true}},
	{name: "reconnecting, HTTP/2", count: 1, client: clientHTTP2, habits: verify.Habits{Cut: 500 * time.Millisecond, Wait: 200 * time.Millisecond}},
	{name: "reconnecting, sharing", count: 3, client: clientShared, habits: verify.Habits{Cut: 500 * time.Millisecond, Old: 0.2, Wait: 200 * time.Millisecond}},
	{name: "with old cursors", count: 4, habits: verify.Habits{Cut: 700 * time.Millisecond, Old: 0.7, Wait: time.Second}},
	{name: "with old cursors, sharing", count: 1, client: clientShared, habits: verify.Habits{Cut: 700 * time.Millisecond, Old: 0.7, Wait: time.Second}},
	{name: "many feeds", count: 3, follow: followsBusy},
	{name: "many feeds, reconnecting", count: 2, follow: followsBusy, habits: verify.Habits{Cut: time.Second, Old: 0.3, Wait: 500 * time.Millisecond}},
	{name: "many feeds, HTTP/2", count: 1, follow: followsBusy, client: clientHTTP2, habits: verify.Habits{Cut: 2 * time.Second}},
	{name: "many feeds, sharing", count: 1, follow: followsBusy, client: clientShared, habits: verify.Habits{Cut: 2 * time.Second}},
	{name: "many feeds, stalling", count: 1, follow: followsBusy, client: clientNarrow, slow: true, habits: verify.Habits{Stall: 2 * time.Second}},
	{name: "many feeds, one of which gets closed", count: 1, follow: followsEnding, habits: verify.Habits{Cut: 2 * time.Second}},
	{name: "on feeds that get closed", count: 2, follow: followsClosing},
	{name: "on feeds that get closed, sharing", count: 2, follow: followsClosing, client: clientShared},
	{name: "on feeds that get closed, with old cursors", count: 2, follow: followsClosing, habits: verify.Habits{Cut: 500 * time.Millisecond, Old: 0.5, Wait: 500 * time.Millisecond}},
	{name: "on all feeds that get closed", count: 1, follow: followsAllClosing, client: clientHTTP2, habits: verify.Habits{Cut: time.Second, Old: 0.3}},
	{name: "of one type", count: 1, habits: verify.Habits{Types: []string{"proof.lines"}}},
	{name: "of one type, sharing", count: 1, client: clientShared, habits: verify.Habits{Types: []string{"proof.lines"}}},
	{name: "of what has no type, reconnecting", count: 2, habits: verify.Habits{Types: []string{"message"}, Cut: 700 * time.Millisecond, Old: 0.5, Wait: 500 * time.Millisecond}},
	{name: "of a type that there is not", count: 1, habits: verify.Habits{Types: []string{"proof.none"}, Cut: 3 * time.Second}},
	{name: "of two types, many feeds", count: 1, follow: followsBusy, habits: verify.Habits{Types: []string{"proof.batch", "message"}, Cut: 2 * time.Second}},
	{name: "on feeds that SQL writes to", count: 1, follow: followsWritten},
	{name: "on feeds that SQL writes to, sharing", count: 1, follow: followsWritten, client: clientShared},
	{name: "on feeds that SQL writes to, reconnecting", count: 1, follow: followsWritten, habits: verify.Habits{Cut: 700 * time.Millisecond, Old: 0.3, Wait: 200 * time.Millisecond}},
	{name: "wide", count: 1, follow: followsWide, wide: 83},
	{name: "wide, HTTP/2", count: 1, follow: followsWide, wide: 40, client: clientHTTP2},
	{name: "wide, reconnecting", count: 1, follow: followsWide, wide: 83, habits: verify.Habits{Cut: time.Second, Old: 0.2, Wait: 500 * time.Millisecond}},
	{name: "wide, reconnecting, sharing", count: 1, follow: followsWide, wide: 83, client: clientShared, habits: verify.Habits{Cut: time.Second, Old: 0.2, Wait: 500 * time.Millisecond}},
	{name: "wide, of one type", count: 1, follow: followsWide, wide: 20, habits: verify.Habits{Types: []string{"proof.batch"}, Cut: 2 * time.Second}},
	{name: "wide, stalling", count: 1, follow: followsWide, wide: 60, client: clientHTTP2Narrow, slow: true, habits: verify.Habits{Stall: 2 * time.Second}},
}

// followed returns the feeds that a subscriber of a kind follows, the nth of all.
func (s *schedule) followed(kind tortureKind, n int) []string {
	one := func(of []string) []string { return of[n%len(of):][:1] }
	switch kind.follow {
	case followsBusy:
		return s.feeds
	case followsQuiet:
		return s.quiet
	case followsWritten:
		return s.written
	case followsWide:
		return s.wide[:kind.wide]
	case followsClosing:
		return one(s.closing)
	case followsAllClosing:
		return s.closing
	case followsEnding:
		return append(one(s.closing), s.feeds...)
	}
	return one(s.feeds)
}

// startSubscribers starts the subscribers, and returns a function that ends them.
func (s *schedule) startSubscribers() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	for _, kind := range tortureKinds {
		count := kind.count
		if !judgesLatency() {
			count = 1
		}
		for i := range count {
			if kind.follow == followsWritten && len(s.written) == 0 {
				continue // nobody writes to SQLite
			}
			w := s.subscriber(kind, s.followed(kind, len(s.subscribers)), i)
			if kind.follow == followsQuiet {
				w.Log.Apart("of quiet feeds", 0)
			}
			s.subscribers = append(s.subscribers, w)
			s.following(w.Clients, func() error { return w.Run(ctx) })
		}
	}
	s.startPagers(ctx)
	s.follow = ctx
	return func() { cancel(); s.followers.Wait() }
}

// subscriber makes the ith subscriber of a kind.
func (s *schedule) subscriber(kind tortureKind, names []string, i int) *verify.Subscriber {
	s.made++
	random := rand.New(rand.NewPCG(s.seed, 1000+s.made))
	habits := kind.habits
	habits.Cut *= slower()
	habits.Wait *= slower()
	w := &verify.Subscriber{
		Log: s.recording.Client(fmt.Sprintf("subscriber %d, %s", i, kind.name), kind.slow), Feeds: names,
		Clients: s.subscriberOf(kind.client, s.urlsFor(kind.client), random), Random: random,
		Habits: habits, Strict: true, Closing: true, Ephemeral: true, Silence: 7 * time.Second * slower(), Counts: &s.counts,
	}
	if types := slices.Clone(kind.habits.Types); len(types) > 0 {
		if i := slices.Index(types, "message"); i >= 0 {
			types[i] = "" // what it is the name of
		}
		w.Log.Filter(types...)
	}
	return w
}

// following runs a subscriber.
func (s *schedule) following(clients []*client.Client, run func() error) {
	s.followers.Go(func() {
		defer hangUp(clients)
		if err := run(); err != nil {
			s.found("a subscriber: %v", err)
		}
	})
}

// urlsFor returns where a client can go: HTTP/2 is only with TLS.
func (s *schedule) urlsFor(client int) []*url.URL {
	all := s.urls()
	secure := slices.DeleteFunc(slices.Clone(all), func(u *url.URL) bool { return u.Scheme != "https" })
	if client < clientHTTP2 || len(secure) == 0 {
		return all
	}
	return secure
}
