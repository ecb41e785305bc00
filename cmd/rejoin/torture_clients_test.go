package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"time"

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
	for i := range torturePublishers {
		p := s.prover(i, s.feeds)
		s.publishing(p.clients, func() error { return p.run(ctx, context.WithoutCancel(ctx)) })
	}
	slow := s.prover(150, s.wide)
	slow.pause *= 3
	s.publishing(slow.clients, func() error { return slow.run(ctx, context.WithoutCancel(ctx)) })
	// What is lost on the way with nothing behind it shows in no id.
	for i, name := range s.quiet {
		p := s.prover(torturePublishers+i, []string{name})
		at := tortureHealth + time.Duration(s.random.Int64N(int64(tortureOverlay+tortureLongest)))
		s.publishing(p.clients, func() error {
			if sleep(ctx, at) != nil {
				return nil // it is over sooner than it could have been
			}
			return p.publish(ctx, 1)
		})
	}
	s.startBatches(ctx)
	s.startClosers(ctx)
	s.startWhisperers(ctx)
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

// prover makes the publisher number i.
func (s *schedule) prover(i int, feeds []string) *prover {
	return &prover{
		recording: s.recording, name: fmt.Sprintf("publisher-%d", i), feeds: feeds, clients: tortureClients(i%2, s.urls()),
		random: rand.New(rand.NewPCG(s.seed, 100+uint64(i))), pause: 35 * time.Millisecond * slower(),
		// Some wait for the answer, some ask another node before it comes.
		attempt: time.Duration(800+1600*(i%3)) * time.Millisecond, patience: tortureArrives * slower(),
		large: 0.15, again: 0.1, twice: 0.1, giveUp: 0.3, counts: &s.counts,
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
	habits habits
}

// tortureFollow is which feeds a subscriber follows.
type tortureFollow int

const (
	followsOne     tortureFollow = iota // of the busy feeds
	followsBusy                         // all of them, over one connection
	followsQuiet                        // all those in which little happens
	followsWide                         // so many of the wide ones
	followsClosing                      // one of those that get closed
	followsAllClosing
	followsEnding // one that gets closed beside the busy ones
)

var tortureKinds = []tortureKind{
	{name: "steady", count: 6},
	{name: "on quiet feeds", count: 4, follow: followsQuiet},
	{name: "steady, in envelopes", count: 2, habits: habits{envelope: true}},
	{name: "steady, HTTP/2", count: 5, client: clientHTTP2},
	{name: "slow", count: 5, client: clientNarrow, slow: true, habits: habits{pause: 150 * time.Millisecond}},
	{name: "slow, HTTP/2", count: 2, client: clientHTTP2, slow: true, habits: habits{pause: 100 * time.Millisecond}},
	{name: "stalling", count: 4, client: clientNarrow, slow: true, habits: habits{stall: 3500 * time.Millisecond}},
	{name: "stalling, in envelopes", count: 1, client: clientNarrow, slow: true, habits: habits{stall: 3500 * time.Millisecond, envelope: true}},
	{name: "reconnecting", count: 5, habits: habits{cut: 500 * time.Millisecond, wait: 200 * time.Millisecond}},
	{name: "reconnecting, in envelopes", count: 2, habits: habits{cut: 500 * time.Millisecond, old: 0.3, wait: 200 * time.Millisecond, envelope: true}},
	{name: "reconnecting, HTTP/2", count: 2, client: clientHTTP2, habits: habits{cut: 500 * time.Millisecond, wait: 200 * time.Millisecond}},
	{name: "with old cursors", count: 5, habits: habits{cut: 700 * time.Millisecond, old: 0.7, wait: time.Second}},
	{name: "many feeds", count: 3, follow: followsBusy},
	{name: "many feeds, reconnecting", count: 2, follow: followsBusy, habits: habits{cut: time.Second, old: 0.3, wait: 500 * time.Millisecond}},
	{name: "many feeds, HTTP/2", count: 2, follow: followsBusy, client: clientHTTP2, habits: habits{cut: 2 * time.Second}},
	{name: "many feeds, stalling", count: 1, follow: followsBusy, client: clientNarrow, slow: true, habits: habits{stall: 2 * time.Second}},
	{name: "many feeds, one of which gets closed", count: 1, follow: followsEnding, habits: habits{cut: 2 * time.Second}},
	{name: "on feeds that get closed", count: 3, follow: followsClosing},
	{name: "on feeds that get closed, with old cursors", count: 3, follow: followsClosing, habits: habits{cut: 500 * time.Millisecond, old: 0.5, wait: 500 * time.Millisecond}},
	{name: "on all feeds that get closed", count: 1, follow: followsAllClosing, habits: habits{cut: time.Second, old: 0.3}},
	{name: "of one type", count: 2, habits: habits{types: []string{"proof.lines"}}},
	{name: "of what has no type, reconnecting", count: 2, habits: habits{types: []string{"message"}, cut: 700 * time.Millisecond, old: 0.5, wait: 500 * time.Millisecond}},
	{name: "of a type that there is not", count: 1, habits: habits{types: []string{"proof.none"}, cut: 3 * time.Second}},
	{name: "of two types, many feeds", count: 1, follow: followsBusy, habits: habits{types: []string{"proof.batch", "message"}, cut: 2 * time.Second}},
	{name: "wide", count: 1, follow: followsWide, wide: 83},
	{name: "wide, HTTP/2", count: 1, follow: followsWide, wide: 40, client: clientHTTP2},
	{name: "wide, reconnecting", count: 2, follow: followsWide, wide: 83, habits: habits{cut: time.Second, old: 0.2, wait: 500 * time.Millisecond}},
	{name: "wide, of one type", count: 1, follow: followsWide, wide: 20, habits: habits{types: []string{"proof.batch"}, cut: 2 * time.Second}},
	{name: "wide, stalling", count: 1, follow: followsWide, wide: 60, client: clientNarrow, slow: true, habits: habits{stall: 2 * time.Second}},
}

// followed returns the feeds that a subscriber of a kind follows, the nth of all.
func (s *schedule) followed(kind tortureKind, n int) []string {
	one := func(of []string) []string { return of[n%len(of):][:1] }
	switch kind.follow {
	case followsBusy:
		return s.feeds
	case followsQuiet:
		return s.quiet
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

// startWitnesses starts the subscribers, and returns a function that ends them.
func (s *schedule) startWitnesses() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	for _, kind := range tortureKinds {
		for i := range kind.count {
			w := s.witness(kind, s.followed(kind, len(s.witnesses)), i)
			if kind.follow == followsQuiet {
				w.log.Apart("of quiet feeds", 0)
			}
			s.witnesses = append(s.witnesses, w)
			s.following(w.clients, func() error { return w.run(ctx) })
		}
	}
	s.startPagers(ctx)
	s.follow = ctx
	return func() { cancel(); s.followers.Wait() }
}

// witness makes the ith subscriber of a kind.
func (s *schedule) witness(kind tortureKind, names []string, i int) *witness {
	s.made++
	random := rand.New(rand.NewPCG(s.seed, 1000+s.made))
	w := &witness{
		log: s.recording.Client(fmt.Sprintf("subscriber %d, %s", i, kind.name), kind.slow), feeds: names,
		clients: tortureSubscribers(kind.client, s.urlsFor(kind.client), random), random: random,
		habits: kind.habits, strict: true, closing: true, ephemeral: true, silence: 7 * time.Second, counts: &s.counts,
	}
	if types := slices.Clone(kind.habits.types); len(types) > 0 {
		if i := slices.Index(types, "message"); i >= 0 {
			types[i] = "" // what it is the name of
		}
		w.log.Filter(types...)
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
	if last := all[len(all)-1]; client == clientHTTP2 && last.Scheme == "https" {
		return []*url.URL{last}
	}
	return all
}
