// Package feedtest holds what tests of feeds need: a store simple enough to be
// seen to be right, and a checker that judges from outside whether subscribers
// got what they were promised.
package feedtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Point is a place in a call of a store where a [Gate] may hold it up.
type Point string

// What an answer says is true at one instant, between Asked and Answered. A call
// held up at Answered brings an answer that may no longer be true.
const (
	AppendAsked     Point = "append asked"     // nothing is stored yet
	AppendCommitted Point = "append committed" // stored, but not answered
	ReadAsked       Point = "read asked"
	ReadAnswered    Point = "read answered"
	BoundsAsked     Point = "bounds asked"
	BoundsAnswered  Point = "bounds answered"
	SeekAsked       Point = "seek asked"
	SeekAnswered    Point = "seek answered"
	ListAsked       Point = "list asked"
	TrimAsked       Point = "trim asked" // nothing is trimmed yet
	TrimDone        Point = "trim done"  // trimmed, but not answered
	SweepAsked      Point = "sweep asked"
)

// Call is a call of a store at one of its points.
type Call struct {
	At    Point
	Feeds []string // sorted, each once
	After feed.ID
}

// Gate is called at each point of each call. It may block; the call goes on
// when it returns nil and fails with the error that it returns otherwise.
type Gate func(ctx context.Context, c Call) error

// Store is a feed.Store in memory, without any cleverness.
type Store struct {
	*content
	gate Gate
}

// content is what all gates to one store share.
type content struct {
	epoch  atomic.Uint64
	mu     sync.Mutex
	id     string
	feeds  map[string]*history
	keys   map[feed.KeyName]keyed
	clock  func() time.Time
	commit func([]feed.Event)
	closed func(name string, last feed.ID)
	refuse func(feed.Batch) error
}

type history struct {
	first   feed.ID
	events  []feed.Event // from first to the last
	closed  bool
	updated time.Time
	unswept []feed.Event // trimmed
	bytes   int64        // of events and unswept
}

func (h *history) last() feed.ID { return h.first + feed.ID(len(h.events)) - 1 }

func (h *history) bounds() feed.Bounds {
	return feed.Bounds{First: h.first, Last: h.last(), Closed: h.closed}
}

// keyed is what the store remembers of a key, and the events of its batch.
type keyed struct {
	row    *feed.KeyRow
	events []feed.Event
}

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{content: &content{
		id:    rand.Text(),
		feeds: make(map[string]*history),
		keys:  make(map[feed.KeyName]keyed),
		clock: time.Now,
	}}
}

// Through returns the same store as seen through gate.
func (s *Store) Through(gate Gate) *Store { return &Store{content: s.content, gate: gate} }

// OnCommit has fn called with the events of each commit before anybody can see
// them. Set it before the store is used.
func (s *Store) OnCommit(fn func([]feed.Event)) { s.commit = fn }

// OnClose has fn called with the last id of each feed that is closed before
// anybody can see that. Set it before the store is used.
func (s *Store) OnClose(fn func(name string, last feed.ID)) { s.closed = fn }

// SetClock has events timed by clock. Set it before the store is used.
func (s *Store) SetClock(clock func() time.Time) { s.clock = clock }

// Refuse has fn asked about each batch; an error refuses that batch alone. Set
// it before the store is used.
func (s *Store) Refuse(fn func(feed.Batch) error) { s.refuse = fn }

func (s *Store) pass(ctx context.Context, at Point, after feed.ID, feeds ...string) error {
	if s.gate == nil {
		return nil
	}
	feeds = slices.Clone(feeds)
	slices.Sort(feeds)
	return s.gate(ctx, Call{At: at, Feeds: slices.Compact(feeds), After: after})
}

// ID implements feed.Store.
func (s *Store) ID() string { return s.id }

// Append implements feed.Store.
func (s *Store) Append(ctx context.Context, batches []feed.Batch) ([]feed.Result, error) {
	var feeds []string
	for _, b := range batches {
		if b.Feed != "" {
			feeds = append(feeds, b.Feed)
		}
		for _, d := range b.Drafts {
			feeds = append(feeds, d.Feed)
		}
	}
	if err := s.pass(ctx, AppendAsked, 0, feeds...); err != nil {
		return nil, err
	}
	results := s.store(batches)
	if err := s.pass(ctx, AppendCommitted, 0, feeds...); err != nil {
		return nil, err
	}
	return results, nil
}

func (s *Store) store(batches []feed.Batch) []feed.Result {
	s.mu.Lock()
	defer s.mu.Unlock()
	results := make([]feed.Result, len(batches))
	for i, b := range batches {
		if s.refuse != nil {
			if err := s.refuse(b); err != nil {
				results[i].Err = err
				continue
			}
		}
		if i > 0 {
			var err error
			if b, err = b.Behind(results[i-1]); err != nil {
				results[i].Err = err
				continue
			}
		}
		results[i] = s.storeOne(b)
	}
	return results
}

// storeOne loads what the batch names, plans its append, and stores the plan.
func (s *Store) storeOne(b feed.Batch) feed.Result {
	in := feed.AppendInput{Now: s.now().UnixMilli(), Feeds: make(map[string]*feed.FeedRow)}
	load := func(name string) {
		row := &feed.FeedRow{}
		if h := s.feeds[name]; h != nil {
			*row = feed.FeedRow{Last: h.last(), Updated: h.updated.UnixMilli(), Closed: h.closed}
		}
		in.Feeds[name] = row
	}
	if b.Feed != "" {
		load(b.Feed)
	}
	for _, d := range b.Drafts {
		load(d.Feed)
	}
	if b.Key != nil {
		name := feed.KeyName{Feed: b.Feed, Name: b.Key.Name}
		if k, ok := s.keys[name]; ok {
			in.Keys = []*feed.KeyRow{k.row}
		}
	}
	plan := feed.PlanAppend([]feed.Batch{b}, in)
	s.write(plan)
	return plan.Results[0]
}

// write stores the plan of one batch.
func (s *Store) write(plan feed.AppendPlan) {
	for _, e := range plan.Events {
		h := s.history(e.Event.Feed)
		h.events = append(h.events, *e.Event)
	}
	events := plan.Results[0].Events
	for name, row := range plan.Keys {
		s.keys[name] = keyed{row, events}
	}
	if s.commit != nil && len(plan.Events) > 0 {
		s.commit(events)
	}
	for _, c := range plan.Feeds {
		h := s.history(c.Name)
		if c.Closes && s.closed != nil {
			s.closed(c.Name, c.Row.Last)
		}
		h.updated, h.closed = time.UnixMilli(c.Row.Updated).UTC(), c.Row.Closed
		h.bytes += c.Bytes
	}
}

func (s *Store) history(name string) *history {
	h := s.feeds[name]
	if h == nil {
		h = &history{first: 1}
		s.feeds[name] = h
	}
	return h
}

func (s *Store) now() time.Time { return s.clock().UTC().Truncate(time.Millisecond) }

// Read implements feed.Store.
func (s *Store) Read(ctx context.Context, name string, after feed.ID, limit feed.Limit) (feed.Page, error) {
	if err := s.pass(ctx, ReadAsked, after, name); err != nil {
		return feed.Page{}, err
	}
	p := s.page(name, after, limit)
	if err := s.pass(ctx, ReadAnswered, after, name); err != nil {
		return feed.Page{}, err
	}
	return p, nil
}

func (s *Store) page(name string, after feed.ID, limit feed.Limit) feed.Page {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.feeds[name]
	if h == nil {
		return feed.Page{Bounds: feed.Unwritten}
	}
	p := feed.Page{Bounds: h.bounds()}
	bytes := 0
	seen := min(max(after+1, h.first)-h.first, feed.ID(len(h.events)))
	for _, e := range h.events[seen:] {
		if len(p.Events) == limit.Events || bytes >= limit.Bytes {
			break
		}
		p.Events = append(p.Events, e)
		bytes += len(e.Data)
	}
	return p
}

// Bounds implements feed.Store.
func (s *Store) Bounds(ctx context.Context, feeds []string) ([]feed.Bounds, error) {
	if err := s.pass(ctx, BoundsAsked, 0, feeds...); err != nil {
		return nil, err
	}
	all := make([]feed.Bounds, len(feeds))
	s.mu.Lock()
	for i, name := range feeds {
		all[i] = feed.Unwritten
		if h := s.feeds[name]; h != nil {
			all[i] = h.bounds()
		}
	}
	s.mu.Unlock()
	if err := s.pass(ctx, BoundsAnswered, 0, feeds...); err != nil {
		return nil, err
	}
	return all, nil
}

// Seek implements feed.Store.
func (s *Store) Seek(ctx context.Context, name string, t time.Time) (feed.ID, error) {
	if err := s.pass(ctx, SeekAsked, 0, name); err != nil {
		return 0, err
	}
	c := s.seek(name, t)
	if err := s.pass(ctx, SeekAnswered, 0, name); err != nil {
		return 0, err
	}
	return c, nil
}

func (s *Store) seek(name string, t time.Time) feed.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.feeds[name]
	if h == nil {
		return 0
	}
	for _, e := range h.events {
		if !e.Time.Before(t) {
			return e.ID - 1
		}
	}
	return h.last()
}

// Close implements feed.Store.
func (s *Store) Close() error { return nil }

// History returns everything that the feed holds now.
func (s *Store) History(name string) feed.Page {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.feeds[name]
	if h == nil {
		return feed.Page{Bounds: feed.Unwritten}
	}
	return feed.Page{Bounds: h.bounds(), Events: slices.Clone(h.events)}
}

// Rollback puts an older state of the feed in place of the present one: the
// events after last were never stored, the feed was not closed, keys that came
// with either are unknown, and ids are given again.
func (s *Store) Rollback(name string, last feed.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.feeds[name]
	if h == nil || last > h.last() || last == h.last() && !h.closed {
		return
	}
	if last+1 < h.first {
		panic(fmt.Sprintf("feedtest: roll %s back to %d, before its oldest event %d", name, last, h.first))
	}
	for _, e := range h.events[last+1-h.first:] {
		h.bytes -= int64(len(e.Data))
	}
	h.events, h.closed = slices.Clone(h.events[:last+1-h.first]), false
	if n := len(h.events); n > 0 {
		h.updated = h.events[n-1].Time
	}
	for key, k := range s.keys {
		lost := func(e feed.Event) bool { return e.Feed == name && e.ID > last }
		if slices.ContainsFunc(k.events, lost) || key.Feed == name && len(k.events) == 0 {
			delete(s.keys, key)
		}
	}
}
