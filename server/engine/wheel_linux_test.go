//go:build !386 && !s390x

package engine

import (
	"math/rand/v2"
	"testing"
	"time"
)

// looked lets a wheel's time pass in steps, and notes when a socket was looked after.
type looked struct {
	wheel
	at []time.Duration
}

func (l *looked) pass(until, step time.Duration) {
	for now := l.now; now <= until; now += step {
		l.advance(now, dueAtOnce, func(*Socket) { l.at = append(l.at, now) })
	}
}

// TestWheel: a socket is looked after when it is due, or sooner, and not twice for
// one time. One that the wheel forgets is a client that is never given up, or one
// that gets no keep-alive and believes the server dead.
func TestWheel(t *testing.T) {
	const reach = wheelSlots * wheelTick
	for _, test := range []struct {
		name     string
		dues     []time.Duration // scheduled one after the other
		from, to time.Duration   // when it has to be looked after first
		looks    int             // within the first 20 seconds
	}{
		{"soon", []time.Duration{time.Second}, time.Second, time.Second + wheelTick, 1},
		{"at once", []time.Duration{0}, 0, 2 * wheelTick, 1},
		{"in the past", []time.Duration{-time.Hour}, 0, 2 * wheelTick, 1},
		{"earlier than before", []time.Duration{10 * time.Second, time.Second}, time.Second, time.Second + wheelTick, 1},
		{"later than before", []time.Duration{time.Second, 10 * time.Second}, 0, time.Second + wheelTick, 1},
		{"the same again", []time.Duration{time.Second, time.Second, time.Second}, time.Second, time.Second + wheelTick, 1},
		{"to and fro", []time.Duration{10 * time.Second, time.Second, 5 * time.Second, 2 * time.Second}, time.Second, time.Second + wheelTick, 1},
		{"beyond its reach", []time.Duration{24 * time.Hour}, reach - 2*wheelTick, reach, 0},
		{"from beyond its reach to soon", []time.Duration{24 * time.Hour, time.Second}, time.Second, time.Second + wheelTick, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, s := &looked{}, &Socket{}
			for _, due := range test.dues {
				l.schedule(s, due)
			}
			l.pass(20*time.Second, wheelTick/3)
			if len(l.at) != test.looks {
				t.Errorf("looked after at %v, want %d times", l.at, test.looks)
			}
			l.pass(2*reach, wheelTick/3) // once round, past what it left behind
			if len(l.at) != 1 || l.at[0] < test.from || l.at[0] > test.to {
				t.Errorf("looked after at %v, want once from %v to %v", l.at, test.from, test.to)
			}
		})
	}
}

// TestWheelClosed: a socket that was closed is not looked after: another may have
// its descriptor.
func TestWheelClosed(t *testing.T) {
	l, s := &looked{}, &Socket{}
	l.schedule(s, time.Second)
	s.closed = true
	l.pass(2*time.Second, wheelTick)
	if len(l.at) > 0 {
		t.Errorf("looked after at %v", l.at)
	}
}

// TestWheelStops: whoever was not called for long, on a machine that was suspended,
// looks after all that is due, and what they schedule meanwhile.
func TestWheelStops(t *testing.T) {
	var w wheel
	sockets := make([]*Socket, 100)
	looks := make(map[*Socket]int)
	for i := range sockets {
		sockets[i] = &Socket{}
		w.schedule(sockets[i], time.Duration(i)*time.Second)
	}
	for w.advance(time.Hour, dueAtOnce, func(s *Socket) {
		looks[s]++
		w.schedule(s, time.Hour+time.Second)
	}) {
	}
	for i, s := range sockets {
		if looks[s] == 0 {
			t.Errorf("socket %d was not looked after", i)
		}
		looks[s] = 0
	}
	for w.advance(time.Hour+time.Second+wheelTick, dueAtOnce, func(s *Socket) { looks[s]++ }) {
	}
	for i, s := range sockets {
		if looks[s] != 1 {
			t.Errorf("socket %d, due then, was looked after %d times", i, looks[s])
		}
	}
}

// TestWheelTakesTurns: of many that are due together, some are looked after at a
// time, and each once.
func TestWheelTakesTurns(t *testing.T) {
	var w wheel
	looks := make(map[*Socket]int)
	const sockets = 5*dueAtOnce + 1
	for range sockets {
		w.schedule(&Socket{}, time.Second)
	}
	calls := 1
	for ; w.advance(2*time.Second, dueAtOnce, func(s *Socket) { looks[s]++ }); calls++ {
		if len(looks) != calls*dueAtOnce {
			t.Errorf("%d were looked after in %d calls", len(looks), calls)
		}
	}
	if len(looks) != sockets || calls != 6 {
		t.Errorf("%d of %d were looked after, in %d calls", len(looks), sockets, calls)
	}
	for s, n := range looks {
		if n != 1 {
			t.Errorf("one was looked after %d times, at tick %d", n, s.tick)
		}
	}
}

// TestWheelAtRandom: whatever is scheduled in whatever order, nobody is late, and
// what is left behind does not pile up.
func TestWheelAtRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var w wheel
	sockets := make([]*Socket, 200)
	due := make(map[*Socket]time.Duration)
	for i := range sockets {
		sockets[i] = &Socket{}
	}
	for now := time.Duration(0); now < 10*time.Minute; now += time.Duration(random.IntN(300)) * time.Millisecond {
		w.advance(now, dueAtOnce, func(s *Socket) {
			if at, ok := due[s]; ok && at <= now {
				delete(due, s)
			} else if ok {
				w.schedule(s, at) // as every socket does that is looked after too early
			}
		})
		for _, at := range due {
			if at < now-2*wheelTick {
				t.Fatalf("one that was due at %v is not looked after at %v", at, now)
			}
		}
		for range 20 {
			s := sockets[random.IntN(len(sockets))]
			if _, ok := due[s]; ok && random.IntN(2) == 0 {
				continue
			}
			due[s] = now + time.Duration(random.IntN(200))*time.Second*time.Duration(random.IntN(2)) + time.Duration(random.IntN(1000))*time.Millisecond
			w.schedule(s, due[s])
		}
	}
	entries := 0
	for _, slot := range w.slots {
		entries += len(slot)
	}
	if entries > 10*len(sockets) {
		t.Errorf("%d entries for %d sockets", entries, len(sockets))
	}
}
