package feed

import (
	"testing"
	"time"
)

// Subscribers between the end of the log and the known end wait for the log. If no
// event exists there, they have to look again: they may be ahead of a store that was
// rolled back.
func TestFillWakesWhenThereIsNothing(t *testing.T) {
	l := newTestLog()
	l.setBounds(Bounds{First: 1, Last: 5}, confirmed{})
	l.setBounds(Bounds{First: 1, Last: 8}, confirmed{})
	if _, v := l.read(7); v != viewEnd {
		t.Fatalf("a cursor that is known to exist has the view %d", v)
	}
	w := l.toFill()
	wake, done := l.fill(w, Page{Bounds: Bounds{First: 1, Last: 5}}, time.Now())
	if !wake || !done {
		t.Errorf("wake %t, done %t, want both", wake, done)
	}
	if _, v := l.read(7); v != viewAhead {
		t.Errorf("a cursor behind all that exists has the view %d", v)
	}
}

// A page that was read before the log restarted belongs to another store.
func TestFillRefusesAPageFromBeforeARestart(t *testing.T) {
	l := newTestLog()
	l.setBounds(Bounds{First: 1, Last: 50}, confirmed{})
	l.setBounds(Bounds{First: 1, Last: 60}, confirmed{})
	w := l.toFill()
	old := Page{Bounds: Bounds{First: 1, Last: 60}, Events: stretch("a", 51, 60)}
	l.setBounds(Bounds{First: 1, Last: 45}, confirmed{tail: 50})
	l.accept(stretch("a", 46, 50), time.Now())
	l.fill(w, old, time.Now())
	if p, _ := l.confirmed(); p.tail != 50 {
		t.Errorf("the log ends with %d, want 50", p.tail)
	}
}

// stretch returns the events of a feed from the id first to the id last.
func stretch(name string, first, last ID) []Event {
	var events []Event
	for id := first; id <= last; id++ {
		events = append(events, Event{Feed: name, ID: id, Data: "x"})
	}
	return events
}
