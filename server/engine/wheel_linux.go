//go:build !386 && !s390x

package engine

import "time"

// wheelTurn is how late the wheel may be, and wheelTurns how far it reaches.
const (
	wheelTurn  = 100 * time.Millisecond
	wheelTurns = 1024
)

// wheel holds sockets by the time at which they have to be looked after. One that
// is scheduled anew leaves its old entry behind, which is passed over.
type wheel struct {
	now   time.Duration
	turn  uint32 // at now
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

// advance looks after the sockets that are due.
func (w *wheel) advance(now time.Duration, look func(*Socket)) {
	for now-w.now >= wheelTurn {
		w.now += wheelTurn
		w.turn++
		due := w.slots[w.turn%wheelTurns]
		w.slots[w.turn%wheelTurns] = nil
		for _, s := range due {
			if s.turn == w.turn && !s.closed {
				look(s)
			}
		}
	}
}
