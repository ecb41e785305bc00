package feed

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// notified is a Notifier that only notes that it was called.
type notified func()

func (c notified) Notify() { c() }

// waiting returns a subscription at the dispatcher, to be attached to a log.
func waiting(dispatcher *Dispatcher, called func()) *Subscription {
	g := newSubscriber(1)
	g.dispatcher, g.notifier = dispatcher, notified(called)
	g.subs[0].subscriber = g
	return &g.subs[0]
}

// TestDispatcherCallsAll: when a log has grown, its dispatcher notifies each of its
// subscriptions once. It does not notify a subscription that has left or that belongs
// to another dispatcher.
func TestDispatcherCallsAll(t *testing.T) {
	l := loaded(1, 0)
	dispatchers := []*Dispatcher{{more: make(chan struct{}, 1)}, {more: make(chan struct{}, 1)}}
	const subscribers = 5 * stepSubscribers
	var calls [subscribers]int
	var subs [subscribers]*Subscription
	for i := range subs {
		subs[i] = waiting(dispatchers[i%2], func() { calls[i]++ })
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
	l.wake() // counts as one with the first, before the next step
	for i, dispatcher := range dispatchers {
		select {
		case <-dispatcher.C():
		default:
			t.Fatal("the dispatcher has no token")
		}
		for dispatcher.Step() {
		}
		for n, calls := range calls {
			want := 1
			if n%2 > i || slices.Contains(gone, n) {
				want = 0
			}
			if calls != want {
				t.Errorf("dispatcher %d: subscriber %d was called %d times, want %d", i, n, calls, want)
			}
		}
	}
}

// TestDispatcherLeaving: subscribers that leave during a pass do not keep the others from
// being notified.
func TestDispatcherLeaving(t *testing.T) {
	for seed := range uint64(200) {
		random := rand.New(rand.NewPCG(seed, 0))
		l, dispatcher := loaded(1, 0), &Dispatcher{more: make(chan struct{}, 1)}
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
			subs[i] = waiting(dispatcher, func() {
				calls[i]++
				for range random.IntN(3) {
					leave(random.IntN(subscribers))
				}
			})
			l.attach(subs[i])
		}
		l.wake()
		for dispatcher.Step() {
			leave(random.IntN(subscribers))
		}
		for i := range calls {
			if calls[i] == 0 && !left[i] {
				t.Fatalf("seed %d: subscriber %d of %d was not called", seed, i, subscribers)
			}
		}
	}
}

// TestDispatcherGrowsMeanwhile: events that come during a pass also reach the
// subscribers that were notified before. However often the log grows, the last
// subscriber is notified.
func TestDispatcherGrowsMeanwhile(t *testing.T) {
	l, dispatcher := loaded(1, 0), &Dispatcher{more: make(chan struct{}, 1)}
	const subscribers = 3 * stepSubscribers
	grown := 0
	var seen [subscribers]int
	for i := range seen {
		l.attach(waiting(dispatcher, func() { seen[i] = grown }))
	}
	for range 30 {
		grown++
		l.wake()
		dispatcher.Step()
	}
	for i, n := range seen {
		if n < grown-2*subscribers/stepSubscribers {
			t.Errorf("subscriber %d has seen %d of %d events", i, n, grown)
		}
	}
	for dispatcher.Step() {
	}
	for i, n := range seen {
		if n != grown {
			t.Errorf("in the end, subscriber %d has seen %d of %d events", i, n, grown)
		}
	}
}

// TestDispatcherTakesTurns: a feed with very many subscribers does not hold up another.
func TestDispatcherTakesTurns(t *testing.T) {
	dispatcher := &Dispatcher{more: make(chan struct{}, 1)}
	hot, calm := loaded(1, 0), loaded(1, 0)
	before, calls := 0, 0
	for range 100 * stepSubscribers {
		hot.attach(waiting(dispatcher, func() { calls++ }))
	}
	calm.attach(waiting(dispatcher, func() { before = calls }))
	alone := waiting(dispatcher, func() { before = max(before, calls) }).subscriber
	hot.wake()
	dispatcher.Step()
	calm.wake()
	alone.Wake()
	for dispatcher.Step() {
	}
	if before == 0 || before > 3*stepSubscribers {
		t.Errorf("%d subscribers of the hot feed were called first", before)
	}
}

// TestDispatcherWake: a subscriber that was woken several times is notified once.
func TestDispatcherWake(t *testing.T) {
	dispatcher := &Dispatcher{more: make(chan struct{}, 1)}
	calls := 0
	g := waiting(dispatcher, func() { calls++ }).subscriber
	for range 3 {
		g.Wake()
	}
	for dispatcher.Step() {
	}
	g.Wake()
	for dispatcher.Step() {
	}
	if calls != 2 {
		t.Errorf("called %d times, want 2", calls)
	}
}

// TestDispatcherSharesTime: however long the subscribers of many feeds take, those of another
// feed have their turn soon.
func TestDispatcherSharesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dispatcher := &Dispatcher{more: make(chan struct{}, 1)}
		const feeds, readers, each = 80, 300, 100 * time.Microsecond
		called := 0
		for range feeds {
			l := loaded(1, 0)
			for range readers {
				l.attach(waiting(dispatcher, func() { called++; time.Sleep(each) }))
			}
			l.wake()
		}
		for range 20 {
			dispatcher.Step() // it is busy
		}
		quick := loaded(1, 0)
		var took time.Duration
		began := time.Now()
		quick.attach(waiting(dispatcher, func() { took = time.Since(began) }))
		quick.wake()
		for dispatcher.Step() {
		}
		if took == 0 || took > 250*time.Millisecond {
			t.Errorf("it had its turn after %v", took)
		}
		if called != feeds*readers {
			t.Errorf("%d calls for %d readers", called, feeds*readers)
		}
	})
}
