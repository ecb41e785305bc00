package feed

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// notified is a reader that only notes that it was called.
type notified func()

func (c notified) Notify() { c() }

// waiting returns a subscription on the lane, to be attached to a log.
func waiting(lane *Dispatcher, called func()) *Subscription {
	g := newSubscriber(1)
	g.dispatcher, g.notifier = lane, notified(called)
	g.subs[0].subscriber = g
	return &g.subs[0]
}

// TestLaneCallsAll: each subscription of a log that grew is called once, those
// that have left are not, and those of another lane are for that one to call.
func TestLaneCallsAll(t *testing.T) {
	l := loaded(1, 0)
	lanes := []*Dispatcher{{more: make(chan struct{}, 1)}, {more: make(chan struct{}, 1)}}
	const subscribers = 5 * stepSubscribers
	var calls [subscribers]int
	var subs [subscribers]*Subscription
	for i := range subs {
		subs[i] = waiting(lanes[i%2], func() { calls[i]++ })
		l.attach(subs[i])
	}
	var gone []int
	for _, i := range rand.Perm(subscribers)[:subscribers/3] {
		l.detach(subs[i])
		gone = append(gone, i)
	}
	if n := l.subscribers(); n != subscribers-len(gone) {
		t.Errorf("%d subscribers are left of %d without %d", n, subscribers, len(gone))
	}
	l.wake()
	l.wake() // is one with the first, which nobody has looked after
	for i, lane := range lanes {
		select {
		case <-lane.C():
		default:
			t.Fatal("the lane was not told")
		}
		for lane.Step() {
		}
		for n, calls := range calls {
			want := 1
			if n%2 > i || slices.Contains(gone, n) {
				want = 0
			}
			if calls != want {
				t.Errorf("lane %d: subscriber %d was called %d times, want %d", i, n, calls, want)
			}
		}
	}
}

// TestLaneLeaving: that readers leave while they are being called keeps no other
// from being called.
func TestLaneLeaving(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		l, lane := loaded(1, 0), &Dispatcher{more: make(chan struct{}, 1)}
		subscribers := 1 + random.IntN(4*stepSubscribers)
		calls, left := make([]int, subscribers), make([]bool, subscribers)
		subs := make([]*Subscription, subscribers)
		leave := func(i int) {
			if !left[i] {
				left[i] = true
				l.detach(subs[i])
			}
		}
		for i := range subs {
			subs[i] = waiting(lane, func() {
				calls[i]++
				for range random.IntN(3) {
					leave(random.IntN(subscribers))
				}
			})
			l.attach(subs[i])
		}
		l.wake()
		for lane.Step() {
			leave(random.IntN(subscribers))
		}
		for i := range calls {
			if calls[i] == 0 && !left[i] {
				t.Fatalf("seed %d: subscriber %d of %d was not called", seed, i, subscribers)
			}
		}
	}
}

// TestLaneGrowsMeanwhile: what a log gets while its readers are being called
// reaches those too that were called before, and who comes last has its turn
// however often the log grows.
func TestLaneGrowsMeanwhile(t *testing.T) {
	l, lane := loaded(1, 0), &Dispatcher{more: make(chan struct{}, 1)}
	const subscribers = 3 * stepSubscribers
	grown := 0
	var seen [subscribers]int
	for i := range seen {
		l.attach(waiting(lane, func() { seen[i] = grown }))
	}
	for range 30 {
		grown++
		l.wake()
		lane.Step()
	}
	for i, n := range seen {
		if n < grown-2*subscribers/stepSubscribers {
			t.Errorf("subscriber %d has seen %d of %d events", i, n, grown)
		}
	}
	for lane.Step() {
	}
	for i, n := range seen {
		if n != grown {
			t.Errorf("in the end, subscriber %d has seen %d of %d events", i, n, grown)
		}
	}
}

// TestLaneTakesTurns: a feed with very many readers does not hold up another.
func TestLaneTakesTurns(t *testing.T) {
	lane := &Dispatcher{more: make(chan struct{}, 1)}
	hot, calm := loaded(1, 0), loaded(1, 0)
	before, calls := 0, 0
	for range 100 * stepSubscribers {
		hot.attach(waiting(lane, func() { calls++ }))
	}
	calm.attach(waiting(lane, func() { before = calls }))
	alone := waiting(lane, func() { before = max(before, calls) }).subscriber
	hot.wake()
	lane.Step()
	calm.wake()
	alone.Wake()
	for lane.Step() {
	}
	if before == 0 || before > 3*stepSubscribers {
		t.Errorf("%d readers of the hot feed were called first", before)
	}
}

// TestLaneWake: a group that is woken is called once for all times it was.
func TestLaneWake(t *testing.T) {
	lane := &Dispatcher{more: make(chan struct{}, 1)}
	calls := 0
	g := waiting(lane, func() { calls++ }).subscriber
	for range 3 {
		g.Wake()
	}
	for lane.Step() {
	}
	g.Wake()
	for lane.Step() {
	}
	if calls != 2 {
		t.Errorf("called %d times, want 2", calls)
	}
}

// TestLaneSharesTime: however long the readers of many feeds take, those of another
// feed have their turn soon.
func TestLaneSharesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lane := &Dispatcher{more: make(chan struct{}, 1)}
		const feeds, readers, each = 80, 300, 100 * time.Microsecond
		called := 0
		for range feeds {
			l := loaded(1, 0)
			for range readers {
				l.attach(waiting(lane, func() { called++; time.Sleep(each) }))
			}
			l.wake()
		}
		for range 20 {
			lane.Step() // it is busy
		}
		quick := loaded(1, 0)
		var took time.Duration
		began := time.Now()
		quick.attach(waiting(lane, func() { took = time.Since(began) }))
		quick.wake()
		for lane.Step() {
		}
		if took == 0 || took > 250*time.Millisecond {
			t.Errorf("it had its turn after %v", took)
		}
		if called != feeds*readers {
			t.Errorf("%d calls for %d readers", called, feeds*readers)
		}
	})
}
