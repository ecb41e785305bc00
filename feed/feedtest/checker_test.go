package feedtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

func event(id feed.ID) feed.Event {
	return feed.Event{Feed: "a", ID: id, Type: "note", Data: fmt.Sprint("data ", id), Time: time.UnixMilli(int64(id)).UTC()}
}

func events(first, last feed.ID) (all []feed.Event) {
	for id := first; id <= last; id++ {
		all = append(all, event(id))
	}
	return all
}

// story is a feed of ten events as a checker and one follower see it.
type story struct {
	*Checker
	f    *Follower
	page feed.Page // what the store holds at the end
}

func newStory() story {
	s := story{Checker: NewChecker()}
	s.f = s.Follow("f", "a")
	s.f.Opened(0)
	s.Acked(events(1, 10)...)
	s.page = feed.Page{Bounds: feed.Bounds{First: 1, Last: 10}, Events: events(1, 10)}
	return s
}

// trim takes the events before the id away.
func (s *story) trim(before feed.ID) {
	s.Trimming("a", before)
	s.page.First, s.page.Events = before, s.page.Events[before-s.page.First:]
}

func (s *story) rollback(last feed.ID) {
	s.RolledBack("a", last)
	s.page.Last, s.page.Events = last, s.page.Events[:last+1-s.page.First]
	s.page.Closed = false
}

// regrow stores other events under ids that are given again.
func (s *story) regrow(first, last feed.ID) []feed.Event {
	again := events(first, last)
	for i := range again {
		again[i].Data += " again"
	}
	s.Acked(again...)
	s.page.Last, s.page.Events = last, append(slices.Clone(s.page.Events), again...)
	return again
}

func (s *story) close(last feed.ID) {
	s.Closed("a", last)
	s.page.Closed = true
}

// keyed publishes event 11 under a key, and records the result.
func (s *story) keyed(result feed.Result) {
	s.Keyed("a", "k", feed.Draft{Feed: "a", Type: "note", Data: "data 11"})
	s.AckedKey("a", "k", result)
	s.page.Last, s.page.Events = 11, events(1, 11)
}

func trimmed(after feed.ID, resumes feed.ID) feed.Gap {
	return feed.Gap{After: after, Resumes: resumes, Reason: feed.Trimmed}
}

func ahead(after feed.ID, resumes feed.ID) feed.Gap {
	return feed.Gap{After: after, Resumes: resumes, Reason: feed.Ahead}
}

func TestCheckerPassesWhatIsRight(t *testing.T) {
	for _, c := range []struct {
		name string
		tell func(*story)
	}{
		{"all at once", func(s *story) { s.f.Saw(events(1, 10)...) }},
		{"one by one", func(s *story) {
			for _, e := range events(1, 10) {
				s.f.Saw(e)
			}
		}},
		{"cut off and back", func(s *story) {
			s.f.Saw(events(1, 4)...)
			s.f.Resume(4)
			s.f.Opened(4)
			s.f.Saw(events(5, 10)...)
		}},
		{"back with an older cursor", func(s *story) {
			s.f.Saw(events(1, 4)...)
			s.f.Resume(2)
			s.f.Opened(2)
			s.f.Saw(events(3, 10)...)
		}},
		{"from the middle", func(s *story) {
			s.f.Leave()
			late := s.Follow("late", "a")
			late.Opened(7)
			late.Saw(events(8, 10)...)
		}},
		{"never open", func(s *story) {
			s.f.Leave()
			s.Follow("late", "a")
		}},
		{"a gap", func(s *story) {
			s.f.Saw(events(1, 2)...)
			s.trim(6)
			s.f.SawGap(trimmed(2, 6))
			s.f.Saw(events(6, 10)...)
		}},
		{"two gaps", func(s *story) {
			s.trim(4)
			s.f.SawGap(trimmed(0, 4))
			s.trim(6)
			s.f.SawGap(trimmed(3, 6))
			s.f.Saw(events(6, 10)...)
		}},
		{"a gap to the end", func(s *story) {
			s.trim(11)
			s.f.SawGap(trimmed(0, 11))
		}},
		{"trimmed events from memory", func(s *story) {
			s.trim(6)
			s.f.Saw(events(1, 10)...)
		}},
		{"a rollback", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.rollback(6)
			s.f.SawGap(ahead(10, 7))
			again := event(7)
			again.Data = "another 7"
			s.page.Last, s.page.Events = 7, append(s.page.Events, again)
			s.Acked(again)
			s.f.Saw(again)
		}},
		{"a rollback that has grown again", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.rollback(6)
			s.regrow(7, 12)
			s.f.SawGap(ahead(10, 13))
		}},
		{"a rollback that has grown again, for one who was before it", func(s *story) {
			s.f.Saw(events(1, 6)...)
			s.rollback(6)
			s.f.Saw(s.regrow(7, 12)...)
		}},
		{"a cursor that was never given", func(s *story) {
			s.f.Leave()
			late := s.Follow("late", "a")
			late.Opened(99)
			late.SawGap(ahead(99, 11))
		}},
		{"seen before it is acknowledged", func(s *story) {
			s.f.Saw(events(1, 11)...)
			s.Acked(event(11))
			s.page.Last, s.page.Events = 11, events(1, 11)
		}},
		{"never acknowledged, but stored", func(s *story) {
			s.f.Saw(events(1, 11)...)
			s.page.Last, s.page.Events = 11, events(1, 11)
		}},
		{"never acknowledged, and trimmed since", func(s *story) {
			s.Unsure(feed.Draft{Feed: "a", Type: "note", Data: "data 11"})
			s.f.Saw(events(1, 11)...)
			s.trim(11)
			s.page.First, s.page.Last, s.page.Events = 12, 11, nil
		}},
		{"off the wire, without time", func(s *story) {
			for _, e := range events(1, 10) {
				e.Time = time.Time{}
				s.f.Saw(e)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory()
			c.tell(&s)
			s.End("a", s.page)
			if err := s.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCheckerCatches(t *testing.T) {
	for _, c := range []struct {
		name string
		tell func(*story)
		want string
	}{
		{"an event skipped", func(s *story) { s.f.Saw(events(1, 4)...); s.f.Saw(events(6, 10)...) }, "event 6, want 5"},
		{"an event twice", func(s *story) { s.f.Saw(events(1, 4)...); s.f.Saw(events(4, 10)...) }, "event 4, want 5"},
		{"two events exchanged", func(s *story) {
			s.f.Saw(event(2), event(1))
			s.f.Saw(events(3, 10)...)
		}, "event 2, want 1"},
		{"an event lost at a reconnect", func(s *story) {
			s.f.Saw(events(1, 4)...)
			s.f.Resume(4)
			s.f.Opened(4)
			s.f.Saw(events(6, 10)...)
		}, "event 6, want 5"},
		{"an event repeated at a reconnect", func(s *story) {
			s.f.Saw(events(1, 4)...)
			s.f.Resume(4)
			s.f.Opened(4)
			s.f.Saw(events(4, 10)...)
		}, "event 4, want 5"},
		{"a reconnect with too new a cursor", func(s *story) {
			s.f.Saw(events(1, 4)...)
			s.f.Resume(6)
			s.f.Opened(6)
			s.f.Saw(events(7, 10)...)
		}, "comes back with 6"},
		{"a reconnect put elsewhere", func(s *story) {
			s.f.Saw(events(1, 4)...)
			s.f.Resume(4)
			s.f.Opened(5)
			s.f.Saw(events(6, 10)...)
		}, "was put at 5"},
		{"a jump over the trimmed without a gap", func(s *story) { s.trim(6); s.f.Saw(events(6, 10)...) }, "event 6, want 1"},
		{"a gap where nothing is gone", func(s *story) { s.f.SawGap(trimmed(0, 6)); s.f.Saw(events(6, 10)...) }, "only the events before 0"},
		{"a gap too large", func(s *story) { s.trim(6); s.f.SawGap(trimmed(0, 7)); s.f.Saw(events(7, 10)...) }, "only the events before 6"},
		{"a gap too small", func(s *story) { s.trim(6); s.f.SawGap(trimmed(0, 5)); s.f.Saw(events(6, 10)...) }, "event 6, want 5"},
		{"a gap of nothing", func(s *story) { s.trim(6); s.f.SawGap(trimmed(0, 1)); s.f.Saw(events(1, 10)...) }, "resumes with 1"},
		{"a gap after another cursor", func(s *story) {
			s.trim(6)
			s.f.SawGap(trimmed(1, 6))
			s.f.Saw(events(6, 10)...)
		}, "the cursor is 0"},
		{"a gap for no reason", func(s *story) {
			s.trim(6)
			s.f.SawGap(feed.Gap{Resumes: 6, Reason: "moon"})
			s.f.Saw(events(6, 10)...)
		}, "moon"},
		{"a gap ahead without a rollback", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.f.SawGap(ahead(10, 7))
			s.f.Saw(events(7, 10)...)
		}, "ahead of 10, which exists"},
		{"a gap ahead of a rollback's end", func(s *story) {
			s.f.Saw(events(1, 6)...)
			s.rollback(6)
			s.f.SawGap(ahead(6, 6))
			s.f.Saw(event(6))
		}, "ahead of 6, which exists"},
		{"a gap ahead that goes back too far", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.rollback(6)
			s.f.SawGap(ahead(10, 5))
			s.f.Saw(events(5, 6)...)
		}, "goes up to 6"},
		{"a gap ahead of more than there is", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.rollback(6)
			s.f.SawGap(ahead(10, 12))
		}, "that resumes with 12"},
		{"a rollback that has grown again, and no gap", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.rollback(6)
			s.f.Saw(s.regrow(7, 12)[4:]...)
		}, "without a gap"},
		{"old events after a rollback", func(s *story) {
			s.f.Saw(events(1, 6)...)
			s.rollback(6)
			s.regrow(7, 10)
			s.f.Saw(events(7, 10)...)
		}, "without a gap"},
		{"wrong bytes", func(s *story) {
			e := event(5)
			e.Data += "!"
			s.f.Saw(events(1, 4)...)
			s.f.Saw(e)
			s.f.Saw(events(6, 10)...)
		}, `is [note "data 5"]`},
		{"a wrong type", func(s *story) {
			e := event(5)
			e.Type = ""
			s.f.Saw(events(1, 4)...)
			s.f.Saw(e)
			s.f.Saw(events(6, 10)...)
		}, `is [note "data 5"]`},
		{"a wrong time", func(s *story) {
			e := event(5)
			e.Time = e.Time.Add(time.Millisecond)
			s.f.Saw(events(1, 4)...)
			s.f.Saw(e)
			s.f.Saw(events(6, 10)...)
		}, "event 5 was delivered"},
		{"an event of another feed", func(s *story) {
			e := event(5)
			e.Feed = "b"
			s.f.Saw(events(1, 4)...)
			s.f.Saw(e)
			s.f.Saw(events(5, 10)...)
		}, "event 5 of b"},
		{"an event that was never stored", func(s *story) {
			s.f.Saw(events(1, 11)...)
		}, "never stored"},
		{"two subscribers, two versions", func(s *story) {
			other := s.Follow("g", "a")
			other.Opened(10)
			e := event(11)
			e.Data = "another"
			other.Saw(e)
			s.f.Saw(events(1, 11)...)
			s.page.Last, s.page.Events = 11, events(1, 11)
		}, "to others as"},
		{"an event before the opening", func(s *story) {
			s.Follow("g", "a").Saw(event(1))
			s.f.Saw(events(1, 10)...)
		}, "before it was open"},
		{"a stop before the end", func(s *story) { s.f.Saw(events(1, 9)...) }, "stopped after 9"},
		{"nothing at all", func(*story) {}, "stopped after 0"},
		{"an acknowledged event not stored", func(s *story) {
			s.f.Saw(events(1, 9)...)
			s.page.Last, s.page.Events = 9, events(1, 9)
		}, "the feed ends with 9"},
		{"an acknowledged event gone from the middle", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.page.Events = append(events(1, 4), events(6, 10)...)
		}, "6 stands where 5 belongs"},
		{"an acknowledged event changed", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.page.Events[4].Data = "changed"
		}, "acknowledged as"},
		{"acknowledged events trimmed for no reason", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.page.First, s.page.Events = 3, events(3, 10)
		}, "event 1 was acknowledged and is not stored"},
		{"an id acknowledged twice", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.Acked(event(10))
		}, "acknowledged twice"},
		{"events that end before the bounds", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.page.Events = events(1, 9)
		}, "the events end before 10"},
		{"impossible bounds", func(s *story) {
			s.f.Saw(events(1, 10)...)
			s.page.First = 0
		}, "impossible bounds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStory()
			c.tell(&s)
			s.End("a", s.page)
			if err := s.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a fault with %q", err, c.want)
			}
		})
	}
}

// TestCheckerReportsAFew: a report stays readable if everything went wrong.
func TestCheckerReportsAFew(t *testing.T) {
	s := newStory()
	for range 1000 {
		s.f.Saw(event(5))
	}
	if lines := strings.Count(s.Err().Error(), "\n") + 1; lines != mostFaults {
		t.Errorf("%d faults reported, want %d", lines, mostFaults)
	}
}
