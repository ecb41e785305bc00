//go:build !386 && !s390x

package engine

import "time"

// wheelTick is the resolution of the wheel. Its wheelSlots ticks are its reach: a
// socket due later than that is looked at, too early, once in a round.
const (
	wheelTick  = 100 * time.Millisecond
	wheelSlots = 1024
)

// How many due sockets a worker looks at in one go, and how many while the dispatcher
// has others waiting: thousands can be due together, and a keep-alive can wait where
// an event cannot.
const dueAtOnce, busyDueAtOnce = 64, 4

// wheel orders sockets by the time at which they are due. Scheduling a socket again
// leaves its old entry behind, which advance skips.
type wheel struct {
	now   time.Duration
	tick  uint32    // at now
	due   []*Socket // the rest of this tick's
	slots [wheelSlots][]*Socket
}

// schedule makes advance look at the socket at the time due, or sooner.
func (w *wheel) schedule(s *Socket, due time.Duration) {
	ticks := min(max(int64((due-w.now+wheelTick-1)/wheelTick), 1), wheelSlots-1)
	tick := w.tick + uint32(ticks)
	if s.tick != 0 && int32(tick-s.tick) >= 0 && int32(s.tick-w.tick) > 0 {
		return // its present entry comes first, and can schedule it again
	}
	s.tick = tick
	slot := &w.slots[tick%wheelSlots]
	*slot = append(*slot, s)
}

// advance calls look for the sockets that are due, up to limit of them. It reports
// whether more are due.
func (w *wheel) advance(now time.Duration, limit int, look func(*Socket)) (more bool) {
	for looks := 0; ; {
		for i, s := range w.due {
			if looks == limit {
				w.due = w.due[i:]
				return true
			}
			if w.due[i] = nil; s.tick == w.tick && !s.closed {
				look(s)
				looks++
			}
		}
		if w.due = nil; now-w.now < wheelTick {
			return false
		}
		w.now += wheelTick
		w.tick++
		w.due, w.slots[w.tick%wheelSlots] = w.slots[w.tick%wheelSlots], nil
	}
}
