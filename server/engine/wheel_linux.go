//go:build !386 && !s390x

package engine

import "time"

// wheelTick is how late the wheel may be, and wheelSlots how far it reaches.
const (
	wheelTick  = 100 * time.Millisecond
	wheelSlots = 1024
)

// How many sockets are looked after at once, while there is nothing else to do
// and while there is: thousands can be due together, and a keep-alive can wait
// where an event cannot.
const dueAtOnce, busyDueAtOnce = 64, 4

// wheel holds sockets by the time at which they have to be looked after. One that
// is scheduled anew leaves its old entry behind, which is passed over.
type wheel struct {
	now   time.Duration
	tick  uint32    // at now
	due   []*Socket // what is left of this turn's
	slots [wheelSlots][]*Socket
}

// schedule has the socket looked after at the time due, or sooner.
func (w *wheel) schedule(s *Socket, due time.Duration) {
	ticks := min(max(int64((due-w.now+wheelTick-1)/wheelTick), 1), wheelSlots-1)
	tick := w.tick + uint32(ticks)
	if s.slot != 0 && int32(tick-s.slot) >= 0 && int32(s.slot-w.tick) > 0 {
		return // it is looked after before that, and can be scheduled then
	}
	s.slot = tick
	slot := &w.slots[tick%wheelSlots]
	*slot = append(*slot, s)
}

// advance looks after sockets that are due, at most so many, and reports whether
// there are more of them.
func (w *wheel) advance(now time.Duration, most int, look func(*Socket)) (more bool) {
	for looks := 0; ; {
		for i, s := range w.due {
			if looks == most {
				w.due = w.due[i:]
				return true
			}
			if w.due[i] = nil; s.slot == w.tick && !s.closed {
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
