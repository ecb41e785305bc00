package server

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
	"github.com/rejoin/rejoin/storage/memory"
)

// timed is a subscriber that leaves when it is drained, after slow has returned,
// or by itself before that.
type timed struct {
	slot
	s     *Server
	slow  func()
	leave sync.Once
}

func (t *timed) drain() {
	t.slow()
	t.goAway()
}

func (t *timed) goAway() { t.leave.Do(func() { t.s.dismiss(t) }) }

// newHub returns a hub of a store without events.
func newHub(t *testing.T) *feed.Hub {
	hub := feed.NewHub(feedtest.NewStore(), memory.NewBus(), feed.HubOptions{})
	t.Cleanup(hub.Close)
	return hub
}

// drainTen drains ten subscribers over 100 ms and returns how long that took. The
// first of them holds up the drain for heldUp. After bored, all leave by themselves.
func drainTen(t *testing.T, heldUp, bored time.Duration) time.Duration {
	t.Helper()
	s := New(newHub(t), nil, Options{})
	slow := sync.OnceFunc(func() { time.Sleep(heldUp) })
	for range 10 {
		one := &timed{s: s, slow: slow}
		if err := s.admit(one, 0); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(bored, one.goAway)
	}
	began := time.Now()
	s.Drain(t.Context(), 100*time.Millisecond)
	return time.Since(began)
}

// TestDrainKeepsTime: delays within a drain, such as late timers, do not make it
// longer than its window.
func TestDrainKeepsTime(t *testing.T) {
	for _, heldUp := range []time.Duration{0, 70 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			if took := drainTen(t, heldUp, time.Hour); took != 90*time.Millisecond {
				t.Errorf("held up for %v, a drain of ten over 100 ms took %v, want 90ms", heldUp, took)
			}
		})
	}
}

// TestDrainOfNobody: a drain is over when the last subscriber has left by itself.
func TestDrainOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if took := drainTen(t, 0, 15*time.Millisecond); took != 15*time.Millisecond {
			t.Errorf("all had left after 15 ms, and the drain took %v", took)
		}
	})
}

// TestSlots: in whatever order subscribers leave, the remaining ones are drained, once
// each.
func TestSlots(t *testing.T) {
	const many = 50
	s := New(newHub(t), nil, Options{})
	var drained []int
	all := make([]*timed, many)
	for i := range all {
		all[i] = &timed{s: s, slow: func() { drained = append(drained, i) }}
		if err := s.admit(all[i], 0); err != nil {
			t.Fatal(err)
		}
	}
	order := rand.Perm(many)
	for _, i := range order[:many/2] {
		all[i].goAway()
	}
	s.Drain(t.Context(), 0)
	slices.Sort(drained)
	stayed := slices.Sorted(slices.Values(order[many/2:]))
	if !slices.Equal(drained, stayed) {
		t.Errorf("drained %v, want the remaining subscribers %v", drained, stayed)
	}
	if n := len(s.subscribers.all) + len(s.subscribers.addresses); n != 0 {
		t.Errorf("%d entries are left", n)
	}
}
