//go:build !386 && !s390x

package engine

import (
	"math/rand/v2"
	"testing"
	"time"
)

// looked advances a wheel in steps, and records when it looked at a socket.
type looked struct {
	wheel
	at []time.Duration
}

func (l *looked) pass(until, step time.Duration) {
	for now := l.now; now <= until; now += step {
		l.advance(now, dueAtOnce, func(*Socket) { l.at = append(l.at, now) })
	}
}

// TestWheel: the wheel looks at a socket when it is due, or sooner, and once. If it forgot
// one, a stalled client would stay, or an idle one would get no keep-alive.
func TestWheel(t *testing.T) {
	const reach = wheelSlots * wheelTick
	for _, test := range []struct {
		name     string
		dues     []time.Duration // scheduled one after the other
		from, to time.Duration   // bounds of the first look
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
				t.Errorf("looks at %v, want %d times", l.at, test.looks)
			}
			l.pass(2*reach, wheelTick/3) // one whole round, past its old entries
			if len(l.at) != 1 || l.at[0] < test.from || l.at[0] > test.to {
				t.Errorf("looks at %v, want once from %v to %v", l.at, test.from, test.to)
			}
		})
	}
}

// TestWheelClosed: the wheel skips a closed socket, whose descriptor may belong to
// another.
func TestWheelClosed(t *testing.T) {
	l, s := &looked{}, &Socket{}
	l.schedule(s, time.Second)
	s.closed = true
	l.pass(2*time.Second, wheelTick)
	if len(l.at) > 0 {
		t.Errorf("looks at %v", l.at)
	}
}

// TestWheelStops: after a long time without a call, on a machine that was suspended, the
// wheel looks at all sockets that are due, and at those scheduled meanwhile.
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
			t.Errorf("socket %d had no look", i)
		}
		looks[s] = 0
	}
	for w.advance(time.Hour+time.Second+wheelTick, dueAtOnce, func(s *Socket) { looks[s]++ }) {
	}
	for i, s := range sockets {
		if looks[s] != 1 {
			t.Errorf("socket %d, due then, had %d looks", i, looks[s])
		}
	}
}

// TestWheelTakesTurns: the wheel looks at a few of many due sockets at a time, and at
// each once.
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
			t.Errorf("%d looks in %d calls", len(looks), calls)
		}
	}
	if len(looks) != sockets || calls != 6 {
		t.Errorf("looks at %d of %d in %d calls", len(looks), sockets, calls)
	}
	for s, n := range looks {
		if n != 1 {
			t.Errorf("one had %d looks, at tick %d", n, s.tick)
		}
	}
}

// TestWheelAtRandom: in any order of schedules, no socket is late, and old entries do not
// pile up.
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
				w.schedule(s, at) // as a socket does that is not due yet
			}
		})
		for _, at := range due {
			if at < now-2*wheelTick {
				t.Fatalf("one that was due at %v is not looks at %v", at, now)
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
