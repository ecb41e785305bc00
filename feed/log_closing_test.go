package feed

import (
	"testing"
	"time"
)

func TestLogClosed(t *testing.T) {
	closed := Bounds{First: 1, Last: 10, Closed: true}
	for _, c := range []struct {
		name string
		tell func(*log)
		want map[ID]view
	}{
		{"closed from the start", func(l *log) { l.setBounds(closed, confirmed{}) },
			map[ID]view{0: viewBehind, 9: viewBehind, 10: viewClosed, 11: viewAhead}},
		{"before the log has reached the end", func(l *log) {
			l.setBounds(Bounds{First: 1, Last: 5}, confirmed{})
			l.setBounds(closed, confirmed{tail: 5})
		}, map[ID]view{4: viewBehind, 5: viewEnd, 9: viewEnd, 10: viewClosed, 11: viewAhead}},
		{"told of more that is not there", func(l *log) {
			l.setBounds(closed, confirmed{})
			l.noteLast(25)
		}, map[ID]view{10: viewClosed, 11: viewEnd, 25: viewEnd, 26: viewAhead}},
		{"told by an older answer that it is open", func(l *log) {
			l.setBounds(closed, confirmed{})
			l.setBounds(Bounds{First: 1, Last: 9}, confirmed{})
		}, map[ID]view{9: viewBehind, 10: viewClosed}},
		{"never written to", func(l *log) {
			l.setBounds(Bounds{First: 1, Closed: true}, confirmed{})
		}, map[ID]view{0: viewClosed, 1: viewAhead}},
		{"trimmed whole", func(l *log) {
			l.setBounds(Bounds{First: 11, Last: 10, Closed: true}, confirmed{})
		}, map[ID]view{0: viewTrimmed, 9: viewTrimmed, 10: viewClosed, 11: viewAhead}},
		{"rolled back to before the close", func(l *log) {
			l.setBounds(closed, confirmed{})
			p, _ := l.confirmed()
			l.setBounds(Bounds{First: 1, Last: 10}, p)
		}, map[ID]view{9: viewBehind, 10: viewEnd, 11: viewAhead}},
		{"rolled back to before the end, behind which the log still is", func(l *log) {
			l.setBounds(Bounds{First: 1, Last: 5}, confirmed{})
			l.setBounds(closed, confirmed{tail: 5})
			p, _ := l.confirmed()
			l.setBounds(Bounds{First: 1, Last: 7}, p)
		}, map[ID]view{6: viewBehind, 7: viewEnd, 8: viewAhead, 10: viewAhead}},
		{"rolled back, and closed elsewhere", func(l *log) {
			l.setBounds(closed, confirmed{})
			p, _ := l.confirmed()
			l.setBounds(Bounds{First: 1, Last: 12, Closed: true}, p)
		}, map[ID]view{10: viewBehind, 12: viewClosed, 13: viewAhead}},
		{"rolled back and published to, which the log gets first", func(l *log) {
			l.setBounds(closed, confirmed{})
			l.take(stretch("a", 11, 11)...)
		}, map[ID]view{9: viewBehind, 10: viewEvents, 11: viewEnd, 12: viewAhead}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newTestLog()
			c.tell(l)
			for cursor, want := range c.want {
				if _, v := l.read(cursor); v != want {
					t.Errorf("after %d: view %d, want %d", cursor, v, want)
				}
			}
			sound(t, l)
		})
	}
}

// The close of a feed wakes the subscribers that wait at its end, once.
func TestLogClosingWakes(t *testing.T) {
	l := loaded(1, 10)
	closed := Bounds{First: 1, Last: 10, Closed: true}
	if !l.setBounds(closed, confirmed{tail: 10}).grew {
		t.Error("closing does not wake")
	}
	if l.setBounds(closed, confirmed{tail: 10}).grew {
		t.Error("a feed that is closed wakes again")
	}
}

func TestLogBoundsClosed(t *testing.T) {
	l := loaded(1, 5)
	l.setBounds(Bounds{First: 1, Last: 7, Closed: true}, confirmed{tail: 5})
	if b, complete, _ := l.bounds(); b.Closed || complete || b.Last != 5 {
		t.Errorf("before the end: got %v, complete %t", b, complete)
	}
	l.take(stretch("a", 6, 7)...)
	l.noteLast(99)
	if b, complete, _ := l.bounds(); !b.Closed || complete || b.Last != 7 {
		t.Errorf("at the end, with a hint of more: got %v, complete %t", b, complete)
	}
}

// A log does not return trimmed events, even if they share a segment with others, or
// came after the trim from a page that was read before it.
func TestLogTrim(t *testing.T) {
	l := loaded(1, 0)
	l.take(stretch("a", 1, 20)...)
	l.setBounds(Bounds{First: 11, Last: 20}, confirmed{tail: 20})
	sound(t, l)
	for c, want := range map[ID]view{0: viewTrimmed, 9: viewTrimmed, 10: viewEvents, 20: viewEnd} {
		d, v := l.read(c)
		if v != want {
			t.Errorf("after %d: view %d, want %d", c, v, want)
		}
		if v == viewTrimmed && *d.Gap != (Gap{After: c, Resumes: 11, Reason: Trimmed}) {
			t.Errorf("after %d: got %+v", c, *d.Gap)
		}
		if v == viewEvents && d.Events()[0].ID != 11 {
			t.Errorf("after %d: got %v", c, ids(d))
		}
	}
	// The log is trimmed past its end, and then filled from a page that was read
	// before the trim.
	l.setBounds(Bounds{First: 31, Last: 40}, confirmed{tail: 20})
	l.fill(l.toFill(), Page{Bounds: Bounds{First: 1, Last: 40}, Events: stretch("a", 21, 40)}, time.Now())
	sound(t, l)
	if d, v := l.read(20); v != viewTrimmed || d.Gap.Resumes != 31 {
		t.Errorf("after 20: view %d, %v", v, ids(d))
	}
	if d, v := l.read(30); v != viewEvents || d.Events()[0].ID != 31 {
		t.Errorf("after 30: view %d, %v", v, ids(d))
	}
}

// A trimmed event does not come back: a store that has it again is an older copy.
func TestLogLearnsOfATrimUndone(t *testing.T) {
	l := loaded(8, 10)
	p, _ := l.confirmed()
	if !l.setBounds(Bounds{First: 3, Last: 12}, p).grew || l.first != 3 || l.generation != 1 {
		t.Errorf("first %d after %d restarts", l.first, l.generation)
	}
	// But an answer from before the trim is only late, and changes nothing.
	l = loaded(8, 10)
	if l.setBounds(Bounds{First: 3, Last: 10}, confirmed{tail: 10, first: 3}).grew || l.first != 8 || l.generation != 0 {
		t.Errorf("first %d after %d restarts", l.first, l.generation)
	}
}
