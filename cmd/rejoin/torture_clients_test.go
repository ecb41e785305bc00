package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/rejoin/rejoin/feed/feedtest"
)

const (
	torturePublishers  = 12
	tortureSubscribers = 60
)

// startPublishers returns a function that has the publishers end and waits
// until the outcome of all that they published is known.
func (s *schedule) startPublishers() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for i := range torturePublishers {
		p := s.prover(i, s.feeds)
		work.Go(func() {
			defer p.client.CloseIdleConnections()
			if err := p.run(ctx, context.WithoutCancel(ctx)); err != nil {
				s.found("%s: %v", p.name, err)
			}
		})
	}
	// What is lost on the way with nothing behind it shows in no id.
	for i, name := range s.quiet {
		p := s.prover(torturePublishers+i, []string{name})
		at := tortureHealth + time.Duration(s.random.Int64N(int64(tortureOverlay+tortureLongest)))
		work.Go(func() {
			defer p.client.CloseIdleConnections()
			if sleep(ctx, at) != nil {
				return // it is over sooner than it could have been
			}
			if err := p.publish(ctx, 1); err != nil {
				s.found("%s: %v", p.name, err)
			}
		})
	}
	return func() { cancel(); work.Wait() }
}

// prover makes the publisher number i.
func (s *schedule) prover(i int, feeds []string) *prover {
	return &prover{
		recording: s.recording, name: fmt.Sprintf("publisher-%d", i), feeds: feeds, urls: s.urls(), client: tortureClient(i % 2),
		random: rand.New(rand.NewPCG(s.seed, 100+uint64(i))), pause: 35 * time.Millisecond * slower(),
		// Some wait for the answer, some ask another node before it comes.
		attempt: time.Duration(800+1600*(i%3)) * time.Millisecond, patience: tortureArrives * slower(),
		large: 0.15, again: 0.1, twice: 0.1, giveUp: 0.3, counts: &s.counts,
	}
}

// kinds of subscribers, with how many there are of each.
var tortureKinds = []struct {
	name   string
	count  int
	client int
	many   bool // all feeds over one connection
	quiet  bool // all those feeds in which little happens, instead
	slow   bool
	habits habits
}{
	{name: "steady", count: 8},
	{name: "on quiet feeds", count: 4, many: true, quiet: true},
	{name: "steady, in envelopes", count: 2, habits: habits{envelope: true}},
	{name: "steady, HTTP/2", count: 6, client: clientHTTP2},
	{name: "slow", count: 6, client: clientNarrow, slow: true, habits: habits{pause: 150 * time.Millisecond}},
	{name: "slow, HTTP/2", count: 2, client: clientHTTP2, slow: true, habits: habits{pause: 100 * time.Millisecond}},
	{name: "stalling", count: 6, client: clientNarrow, slow: true, habits: habits{stall: 3500 * time.Millisecond}},
	{name: "reconnecting", count: 8, habits: habits{cut: 500 * time.Millisecond, wait: 200 * time.Millisecond}},
	{name: "reconnecting, HTTP/2", count: 2, client: clientHTTP2, habits: habits{cut: 500 * time.Millisecond, wait: 200 * time.Millisecond}},
	{name: "with old cursors", count: 6, habits: habits{cut: 700 * time.Millisecond, old: 0.7, wait: time.Second}},
	{name: "many feeds", count: 4, many: true},
	{name: "many feeds, reconnecting", count: 3, many: true, habits: habits{cut: time.Second, old: 0.3, wait: 500 * time.Millisecond}},
	{name: "many feeds, HTTP/2", count: 2, many: true, client: clientHTTP2, habits: habits{cut: 2 * time.Second}},
	{name: "many feeds, stalling", count: 1, many: true, client: clientNarrow, slow: true, habits: habits{stall: 2 * time.Second}},
}

// startWitnesses starts the subscribers, and returns a function that ends them.
func (s *schedule) startWitnesses() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	for _, kind := range tortureKinds {
		for i := range kind.count {
			names := s.feeds
			if kind.quiet {
				names = s.quiet
			} else if !kind.many {
				names = s.feeds[len(s.witnesses)%len(s.feeds):][:1]
			}
			at, err := newPlaces(names)
			if err != nil {
				s.world.t.Fatal(err)
			}
			w := &witness{
				log: s.recording.Client(fmt.Sprintf("subscriber %d, %s", i, kind.name), kind.slow), at: at, urls: s.urlsFor(kind.client),
				client: tortureClient(kind.client), random: rand.New(rand.NewPCG(s.seed, 1000+uint64(len(s.witnesses)))),
				habits: kind.habits, strict: true, silence: 7 * time.Second, counts: &s.counts,
			}
			if kind.quiet {
				w.log.Apart("of quiet feeds")
			}
			s.witnesses = append(s.witnesses, w)
			work.Go(func() {
				defer w.client.CloseIdleConnections()
				if err := w.run(ctx); err != nil {
					s.found("%s of a subscriber: %v", kind.name, err)
				}
			})
		}
	}
	return func() { cancel(); work.Wait() }
}

// urlsFor returns where a client can go: HTTP/2 is only with TLS.
func (s *schedule) urlsFor(client int) []*url.URL {
	all := s.urls()
	if last := all[len(all)-1]; client == clientHTTP2 && last.Scheme == "https" {
		return []*url.URL{last}
	}
	return all
}

// trim trims a feed to its newest events, at any node, until one has done it.
func (s *schedule) trim(t laidTrim, start time.Time) {
	time.Sleep(time.Until(start.Add(t.at)))
	newest := uint64(0)
	for _, w := range s.witnesses {
		newest = max(newest, w.log.Reached(t.feed))
	}
	if newest <= t.keep {
		return
	}
	order := feedtest.Trim{Feed: t.feed, Before: newest - t.keep, Asked: time.Now()}
	client := tortureClient(clientHTTP1)
	client.Timeout = 2 * time.Second
	defer client.CloseIdleConnections()
	urls := s.urls()
	for i := int(s.seed % 100); order.Gone.IsZero() && time.Since(order.Asked) < 10*time.Second; i++ {
		if err := trimFeed(client, urls[i%len(urls)], t.feed, order.Before); err == nil {
			order.Gone = time.Now()
			break
		}
		time.Sleep(100 * time.Millisecond) // until another may take it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders = append(s.orders, order)
}

func trimFeed(client *http.Client, server *url.URL, name string, before uint64) error {
	u := server.JoinPath("v1", "feeds", name, "events")
	u.RawQuery = "before=" + strconv.FormatUint(before, 10)
	req, err := http.NewRequest(http.MethodDelete, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // the status says it all
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("trim: %s", resp.Status)
	}
	return nil
}
