package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// figures is what a node reports about itself, an event of feed.NodesFeed. Rates and
// latencies are those since the report before; the first one has none.
type figures struct {
	Node        string      `json:"node"`
	Name        string      `json:"name,omitempty"`
	Version     string      `json:"version,omitempty"`
	Started     string      `json:"started"`
	Draining    bool        `json:"draining,omitempty"`
	Subscribers int         `json:"subscribers"`
	Feeds       int         `json:"feeds"`
	Published   *float64    `json:"published,omitempty"` // events in a second
	Delivered   *float64    `json:"delivered,omitempty"` // events in a second
	Delivery    *latency    `json:"delivery,omitempty"`
	Commit      *latency    `json:"commit,omitempty"`
	Lag         int64       `json:"lag"` // milliseconds since the node has compared its feeds with the store
	Memory      memoryState `json:"memory"`
	Store       partState   `json:"store"`
	Bus         partState   `json:"bus"`
	// Followed has the feeds with the most subscribers here, and Unnamed is set if there
	// are more.
	Followed map[string]int `json:"followed"`
	Unnamed  bool           `json:"unnamed,omitempty"`
}

// latency is in milliseconds.
type latency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
}

type memoryState struct {
	Used  int64 `json:"used"`
	Limit int64 `json:"limit"`
}

// partState is the state of the store or of the bus.
type partState struct {
	Up     bool   `json:"up"`
	Reason string `json:"reason,omitempty"` // why not
}

// totals are what rates and latencies are differences of.
type totals struct {
	at                   time.Time
	published, delivered uint64
	deliveries, commits  feed.DurationCounts
}

func (s *Server) totals(stats feed.Stats) totals {
	t := totals{
		at: time.Now(), published: s.publisher.Published(), delivered: stats.FromLog + stats.FromStore,
		commits: s.hub.CommitTimes().Counts(),
	}
	for i := range s.counters.deliveries {
		t.deliveries = t.deliveries.Plus(s.counters.deliveries[i].Counts())
	}
	return t
}

const (
	// maxFollowed and followedBytes bound the feeds that a report names.
	maxFollowed   = 50
	followedBytes = 4 << 10
	// rateAge is how old the report before may be for rates to be since then.
	rateAge = 30 * time.Second
)

// reporter returns a function that returns the node's figures as JSON.
func (s *Server) reporter() func(context.Context) string {
	var before totals
	return func(ctx context.Context) string {
		stats := s.hub.Stats()
		now := s.totals(stats)
		f := s.figures(ctx, stats)
		if seconds := now.at.Sub(before.at).Seconds(); seconds > 0 && seconds < rateAge.Seconds() {
			f.Published = perSecond(now.published-before.published, seconds)
			f.Delivered = perSecond(now.delivered-before.delivered, seconds)
			f.Delivery = newLatency(now.deliveries.Minus(before.deliveries))
			f.Commit = newLatency(now.commits.Minus(before.commits))
		}
		before = now
		text, err := json.Marshal(f)
		if err != nil {
			panic(err) // figures is a plain struct of finite numbers
		}
		return string(text)
	}
}

// figures returns all but rates and latencies.
func (s *Server) figures(ctx context.Context, stats feed.Stats) figures {
	o := s.options()
	f := figures{
		Node: s.hub.Node(), Name: o.Node, Version: o.Version, Started: s.started.UTC().Format(timeFormat), Draining: s.isDraining(),
		Subscribers: stats.Subscribers, Feeds: stats.Feeds,
		Lag: max(time.Since(stats.Compared).Milliseconds(), 0),
	}
	f.Memory.Used, f.Memory.Limit = s.memory.Total()
	f.Followed, f.Unnamed = followed(s.hub)
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	health := s.hub.Health(ctx)
	f.Store, f.Bus = newPartState(health.Store), newPartState(health.Bus)
	return f
}

// followed returns the feeds with the most subscribers, and whether there are more.
func followed(hub *feed.Hub) (named map[string]int, more bool) {
	feeds, ok := hub.Followed(maxFollowed + 1)
	named = make(map[string]int, len(feeds))
	size := 0
	for _, f := range feeds {
		if size += len(f.Feed); len(named) == maxFollowed || size > followedBytes {
			return named, true
		}
		named[f.Feed] = f.Subscribers
	}
	return named, !ok
}

func newPartState(err error) partState {
	switch {
	case err == nil:
		return partState{Up: true}
	case errors.Is(err, context.DeadlineExceeded):
		return partState{Reason: fmt.Sprintf("no answer within %v", readyTimeout)}
	}
	return partState{Reason: shortened(err.Error())}
}

func perSecond(n uint64, seconds float64) *float64 { return new(rounded(float64(n) / seconds)) }

// newLatency returns nil if nothing was measured.
func newLatency(counts feed.DurationCounts) *latency {
	p50, ok := counts.Quantile(.5)
	p99, _ := counts.Quantile(.99)
	if !ok {
		return nil
	}
	return &latency{milliseconds(p50), milliseconds(p99)}
}

func milliseconds(d time.Duration) float64 { return rounded(float64(d) / float64(time.Millisecond)) }

// rounded returns n with one or two decimals, more of which would say nothing.
func rounded(n float64) float64 { return math.Round(n*100) / 100 }
