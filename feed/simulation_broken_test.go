package feed_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

func closing(spoil func(*feed.Bounds)) func(*plan) {
	return func(p *plan) {
		p.closes = true
		bounds(spoil)(p)
	}
}

// signalling spoils the signals of a world that has them.
func signalling(spoil func(receive func([]byte), payload []byte)) func(*plan) {
	return func(p *plan) {
		p.signals = true
		p.bus = func(b feed.Bus) feed.Bus { return deafBus{b.(signalTail), spoil} }
	}
}

// grouped makes readers follow groups of feeds.
func grouped(alter func(*plan)) func(*plan) {
	return func(p *plan) {
		p.feeds, p.groups, p.rollbacks = 2, 100, false
		alter(p)
	}
}

func TestSimulationNoticesBrokenPromises(t *testing.T) {
	const seeds = 200
	oneProcessor(t)
	for _, c := range []struct {
		name  string
		alter func(*plan)
		want  string // in the error; "" if any error will do
	}{
		{"bounds from a stale replica", func(p *plan) {
			through(func(s feed.RetentionStore) feed.RetentionStore {
				return &staleStore{RetentionStore: s, old: make(map[string]feed.Bounds)}
			})(p)
		}, ""},
		{"a page with a hole", pages(func(p *feed.Page) {
			if len(p.Events) > 2 {
				p.Events = append(p.Events[:1:1], p.Events[2:]...)
			}
		}), ""},
		{"a page that begins too late", pages(func(p *feed.Page) {
			if len(p.Events) > 1 {
				p.Events = p.Events[1:]
			}
		}), ""},
		{"a page that claims a trim", pages(func(p *feed.Page) {
			if len(p.Events) > 1 {
				p.Events = p.Events[1:]
				p.First = p.Events[0].ID
			}
		}), ""},
		{"a page with two events exchanged", pages(func(p *feed.Page) {
			if len(p.Events) > 1 {
				p.Events[0].Data, p.Events[1].Data = p.Events[1].Data, p.Events[0].Data
			}
		}), ""},
		{"an empty page", pages(func(p *feed.Page) { p.Events = nil }), ""},
		{"a page of another store", pages(func(p *feed.Page) {
			for i := range p.Events {
				p.Events[i].Type = "other"
			}
		}), ""},
		{"an append that answers with other ids", results(func(r []feed.Result, err error) ([]feed.Result, error) {
			for i := range r {
				for j := range r[i].Events {
					r[i].Events[j].ID++
				}
			}
			return r, err
		}), ""},
		{"an append that fails after it has stored", results(func(r []feed.Result, err error) ([]feed.Result, error) {
			return nil, feed.ErrUnavailable
		}), ""},
		{"an append that answers in another order", results(func(r []feed.Result, err error) ([]feed.Result, error) {
			if len(r) > 1 {
				r[0], r[1] = r[1], r[0]
			}
			return r, err
		}), ""},
		{"a bus that changes the data", lies(func(e *feed.Event) { e.Data += "?" }), ""},
		{"a bus that renumbers", lies(func(e *feed.Event) { e.ID++ }), ""},
		{"a bus that mixes up feeds", func(p *plan) {
			p.feeds = 2
			lies(func(e *feed.Event) { e.Feed = map[string]string{"f0": "f1", "f1": "f0"}[e.Feed] })(p)
		}, ""},
		{"a store that forgets keys", func(p *plan) {
			p.keys, p.steps = true, 200
			through(func(s feed.RetentionStore) feed.RetentionStore { return amnesiac{s} })(p)
		}, "is stored as event"},
		{"a key that is answered with other events", func(p *plan) {
			p.keys, p.steps = true, 200
			results(func(r []feed.Result, err error) ([]feed.Result, error) {
				for i := range r {
					if r[i].Replayed && len(r[i].Events) > 0 {
						r[i].Events = slices.Clone(r[i].Events)
						r[i].Events[0].ID++
					}
				}
				return r, err
			})(p)
		}, "and then with"},
		{"conditions that are not looked at", func(p *plan) {
			p.keys, p.steps = true, 200
			through(func(s feed.RetentionStore) feed.RetentionStore { return unconditional{s} })(p)
		}, "on condition"},
		{"a close that lets events through", func(p *plan) {
			p.closes = true
			p.store = func(w *world, s feed.RetentionStore) feed.RetentionStore { return leaky{s, w.store} }
		}, "was stored after the close"},
		{"a close that is known too early", closing(func(b *feed.Bounds) { b.Closed = b.Last > 20 }), "learned at"},
		{"a close that ends before its feed", closing(func(b *feed.Bounds) {
			if b.Closed && b.Last > b.First {
				b.Last--
			}
		}), "learned at"},
		{"a close that nobody hears of", closing(func(b *feed.Bounds) { b.Closed = false }), ""},
		{"a node that serves what it has trimmed", func(p *plan) {
			p.trims, p.rollbacks = true, false
			p.trim = func(w *world, _ *node, name string, before feed.ID) error {
				return w.store.Trim(context.Background(), name, before)
			}
		}, "long after"},
		{"a store that takes back what it has said of its end", func(p *plan) {
			p.rollbacks = true
			most, mu := make(map[string]feed.ID), &sync.Mutex{}
			through(func(s feed.RetentionStore) feed.RetentionStore { return stubborn{s, mu, most} })(p)
		}, ""},
		{"a store that grows under ids given before, and does not show it", func(p *plan) {
			p.rollbacks = true
			through(func(s feed.RetentionStore) feed.RetentionStore { return plainStore{s} })(p)
		}, "without a gap"},
		{"bounds of several feeds in another order", grouped(through(func(s feed.RetentionStore) feed.RetentionStore { return swapped{s} })), ""},
		{"a search that finds too much for the retention", func(p *plan) {
			p.retention, p.retain.Age = true, 5*time.Second
			through(func(s feed.RetentionStore) feed.RetentionStore {
				return seekStore{s, func(c feed.ID) feed.ID { return c + 2 }}
			})(p)
		}, "retention trims"},
		{"signals that come in another order", func(p *plan) {
			var mu sync.Mutex
			var late []byte
			signalling(func(receive func([]byte), payload []byte) {
				mu.Lock()
				payload, late = late, payload
				mu.Unlock()
				receive(payload)
			})(p)
		}, "ephemeral event"},
		{"signals with other events", signalling(func(receive func([]byte), payload []byte) {
			receive(bytes.Replace(payload, []byte("~"), []byte("~1"), 1))
		}), "which was sent as"},
		{"signals that nobody hears", signalling(func(func([]byte), []byte) {}), ""},

		{"an engine that forgets a delivery", handed(func() func(_, now *handout) bool {
			lose := every(50)
			return func(_, now *handout) bool { return len(now.d.Events()) > 0 && !now.d.Ephemeral && lose() }
		}()), "was delivered event"},
		{"an engine that hands out a delivery twice", handed(func() func(_, now *handout) bool {
			repeat := every(50)
			return func(before, now *handout) bool {
				if before != nil && len(now.d.Events()) > 0 && repeat() {
					*now = *before
				}
				return false
			}
		}()), ""},
		{"an engine that hides gaps", handed(func(_, now *handout) bool { return now.d.Gap != nil }), "want"},
		{"an engine that invents a gap", handed(func() func(_, now *handout) bool {
			lie := every(50)
			return func(_, now *handout) bool {
				if e := now.d.Events(); len(e) > 1 && !now.d.Ephemeral && lie() {
					now.d = feed.Delivery{Gap: &feed.Gap{After: e[0].ID - 1, Resumes: e[0].ID + 1, Reason: feed.Trimmed}}
				}
				return false
			}
		}()), "only the events before"},
		{"an engine that says closed at the first event", handed(func(_, now *handout) bool {
			if len(now.d.Events()) > 0 && !now.d.Ephemeral {
				now.d, now.err = feed.Delivery{}, feed.ErrClosed
			}
			return false
		}), "learned at"},
		{"a group that mixes up its feeds", grouped(handed(func(_, now *handout) bool {
			now.part ^= 1
			return false
		})), ""},
		{"a hub that does not ask the store", func(p *plan) { p.blind = true }, "2 seconds"},
		{"a publisher that takes what is uncertain for refused", func(p *plan) {
			p.faults = 12
			p.answer = func(r feed.Result, err error) (feed.Result, error) {
				if isUncertain(err) {
					err = feed.ErrUnavailable
				}
				return r, err
			}
		}, "its publish was refused"},
		{"a publisher that takes what was refused for stored", func(p *plan) {
			p.answer = func(r feed.Result, err error) (feed.Result, error) {
				if errors.Is(err, feed.ErrUnavailable) {
					err = nil
				}
				return r, err
			}
		}, "published"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(seeds) {
				if _, err := simulate(t, seed+1, c.alter); err != nil && strings.Contains(err.Error(), c.want) {
					t.Logf("seed %d: %v", seed+1, err)
					return
				}
			}
			t.Errorf("not noticed in %d seeds", seeds)
		})
	}
}
