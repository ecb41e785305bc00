//go:build !386 && !s390x

package engine

import "time"

// wheelTurn is how late the wheel may be, and wheelTurns how far it reaches.
const (
	wheelTurn  = 100 * time.Millisecond
	wheelTurns = 1024
)

// How many sockets are looked after at once, while there is nothing else to do
// and while there is: thousands can be due together, and a keep-alive can wait
// where an event cannot.
const wheelLooks, busyLooks = 64, 4

// wheel holds sockets by the time at which they have to be looked after. One that
// is scheduled anew leaves its old entry behind, which is passed over.
type wheel struct {
	now   time.Duration
	turn  uint32    // at now
	due   []*Socket // what is left of this turn's
	slots [wheelTurns][]*Socket
}

// schedule has the socket looked after at the time due, or sooner.
func (w *wheel) schedule(s *Socket, due time.Duration) {
	turns := min(max(int64((due-w.now+wheelTurn-1)/wheelTurn), 1), wheelTurns-1)
	turn := w.turn + uint32(turns)
	if s.turn != 0 && int32(turn-s.turn) >= 0 && int32(s.turn-w.turn) > 0 {
		return // it is looked after before that, and can be scheduled then
	}
	s.turn = turn
	slot := &w.slots[turn%wheelTurns]
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
			if w.due[i] = nil; s.turn == w.turn && !s.closed {
				look(s)
				looks++
			}
		}
		if w.due = nil; now-w.now < wheelTurn {
			return false
		}
		w.now += wheelTurn
		w.turn++
		w.due, w.slots[w.turn%wheelTurns] = w.slots[w.turn%wheelTurns], nil
	}
}
