package feedtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// script is a run as the tests write it down, to be played into a Recording.
type script struct {
	attempts []Attempt
	trims    []Trim
	faults   []Fault
	held     map[string][]feed.ID // ids, with the bounds in front
	sums     map[string]map[feed.ID]Sum
	clients  [][]step
	left     map[int]bool
}

// step is something that a client saw at a time.
type step struct {
	at     time.Duration
	kind   byte
	feed   string
	id     feed.ID
	sum    Sum
	gap    feed.Gap
	broken string
}

const (
	scriptEvents  = 60
	scriptTrimmed = 20 // before this id, at scriptTrim
	scriptTrim    = 300 * time.Millisecond
	scriptGone    = 350 * time.Millisecond
	scriptPace    = 10 * time.Millisecond // event n is acknowledged at n times this
)

func sumAt(name string, id feed.ID) Sum { return SumOf("", fmt.Sprintf("%s %d", name, id)) }

// soundScript is a run in which nothing is wrong, and much happens: retries,
// outcomes that stay unknown, a trim, clients that come back, once with an old
// cursor, and one with a cursor from before the trim.
func soundScript() *script {
	s := &script{held: make(map[string][]feed.ID), sums: make(map[string]map[feed.ID]Sum), left: make(map[int]bool)}
	for _, name := range []string{"a", "b"} {
		s.sums[name] = make(map[feed.ID]Sum)
		for id := feed.ID(1); id <= scriptEvents; id++ {
			s.sums[name][id] = sumAt(name, id)
			attempt := Attempt{Feed: name, Key: fmt.Sprintf("k%d", id), Sum: sumAt(name, id)}
			if id%3 == 0 {
				s.attempts = append(s.attempts, attempt)
			}
			if id == 30 || id == 45 {
				continue // stored, and never acknowledged
			}
			attempt.Outcome, attempt.ID = Acknowledged, id
			s.attempts = append(s.attempts, attempt)
			if id%9 == 0 {
				s.attempts = append(s.attempts, attempt)
			}
		}
		s.attempts = append(s.attempts,
			Attempt{Feed: name, Key: "never", Sum: SumOf("", name+" never")},
			Attempt{Feed: name, Key: "refused", Sum: SumOf("", name+" refused"), Outcome: Refused})
	}
	s.held["a"] = []feed.ID{scriptTrimmed, scriptEvents}
	s.held["b"] = []feed.ID{1, scriptEvents}
	s.trims = []Trim{{Feed: "a", Before: scriptTrimmed}}
	s.clients = [][]step{
		slices.Concat(connection(0, 0, 60, "a", "b")),
		slices.Concat(connection(0, 0, 25, "a"), connection(400, 25, 40, "a"), connection(600, 33, 60, "a")),
		slices.Concat(connection(0, 0, 10, "a"), connection(400, 10, 60, "a")),
		slices.Concat(connection(0, 0, 30, "b"), connection(310, 30, 60, "b")),
	}
	return s
}

// connection returns the steps of a connection that begins at ms milliseconds and
// delivers the events after cursor, up to the event to.
func connection(ms int, cursor, to feed.ID, feeds ...string) (steps []step) {
	began := time.Duration(ms) * time.Millisecond
	steps = append(steps, step{at: began, kind: connected})
	for _, name := range feeds {
		steps = append(steps, step{at: began, kind: asked, feed: name, id: cursor})
	}
	for _, name := range feeds {
		steps = append(steps, step{at: began, kind: opened, feed: name, id: cursor})
	}
	last := began
	for id := cursor + 1; id <= to; id++ {
		for _, name := range feeds {
			if name == "a" && began > scriptGone && id < scriptTrimmed {
				if id == cursor+1 {
					g := feed.Gap{After: cursor, Resumes: scriptTrimmed, Reason: feed.Trimmed}
					steps = append(steps, step{at: began, kind: gapped, feed: name, gap: g})
				}
				continue
			}
			last = max(last, time.Duration(id)*scriptPace+time.Millisecond)
			steps = append(steps, step{at: last, kind: delivered, feed: name, id: id, sum: sumAt(name, id)})
		}
	}
	return append(steps, step{at: last, kind: cut})
}

// play makes the recording.
func (s *script) play() *Recording {
	r := NewRecording()
	for _, a := range s.attempts {
		a.At = r.began.Add(time.Duration(a.ID) * scriptPace)
		r.Attempted(a)
	}
	for _, t := range s.trims {
		t.Asked, t.Gone = r.began.Add(scriptTrim), r.began.Add(scriptGone)
		r.Trimmed(t)
	}
	for _, f := range s.faults {
		f.From, f.Until = r.began.Add(100*time.Millisecond), r.began.Add(200*time.Millisecond)
		r.Broken(f)
	}
	for name, held := range s.held {
		r.Holds(name, held[0], held[1])
		for id := held[0]; id <= held[1]; id++ {
			if sum, ok := s.sums[name][id]; ok {
				r.Held(name, id, sum)
			}
		}
	}
	for i, steps := range s.clients {
		log := r.Client(fmt.Sprintf("client %d", i), false)
		for _, step := range steps {
			step.play(log, r.began.Add(step.at))
		}
		if s.left[i] {
			log.Leave()
		}
	}
	return r
}

func (s step) play(log *DeliveryLog, at time.Time) {
	switch s.kind {
	case connected:
		log.Connects(at)
	case asked:
		log.Asks(s.feed, s.id, at)
	case opened:
		log.Opened(s.feed, s.id, at)
	case delivered:
		log.Delivered(s.feed, s.id, s.sum, at)
	case gapped:
		log.Gap(s.feed, s.gap, at)
	case cut:
		log.Cut(at)
	case broken:
		log.Broke(s.broken, at)
	}
}

// index returns the step at which the client first gets the event.
func (s *script) index(client int, name string, id feed.ID) int {
	return slices.IndexFunc(s.clients[client], func(s step) bool { return s.kind == delivered && s.feed == name && s.id == id })
}

func (s *script) ack(name string, id feed.ID) *Attempt {
	i := slices.IndexFunc(s.attempts, func(a Attempt) bool { return a.Feed == name && a.ID == id })
	return &s.attempts[i]
}

// drop removes the client's deliveries of the events from one id to another.
func (s *script) drop(client int, name string, from, to feed.ID) {
	s.clients[client] = slices.DeleteFunc(s.clients[client], func(s step) bool {
		return s.kind == delivered && s.feed == name && s.id >= from && s.id <= to
	})
}

func (s *script) insert(client, at int, steps ...step) {
	s.clients[client] = slices.Insert(s.clients[client], at, steps...)
}

// again delivers an event to the client once more, behind another event.
func (s *script) again(client int, name string, id, behind feed.ID) {
	at := s.index(client, name, behind)
	s.insert(client, at+1, step{at: s.clients[client][at].at, kind: delivered, feed: name, id: id, sum: sumAt(name, id)})
}

func TestJudgeSoundRun(t *testing.T) {
	report := soundScript().play().Judge()
	for _, f := range report.Findings {
		t.Error(f)
	}
	// 60 of each feed, but for 2 that are stored and 2 that are not.
	if report.Acknowledged != 116 || report.Unknown != 8 || report.Clients != 4 || report.Connections != 8 || report.Gaps != 1 {
		t.Errorf("counted %+v", report)
	}
	if report.Deliveries != 120+25+15+27+10+41+60 {
		t.Errorf("counted %d deliveries", report.Deliveries)
	}
	if report.Health.Count == 0 || report.Health.Worst > 10*time.Millisecond || report.Replays == 0 {
		t.Errorf("counted %d delays, the worst %v, and %d replays", report.Health.Count, report.Health.Worst, report.Replays)
	}
}

// mutations are bugs of servers, and of runs that do not test what they claim.
var mutations = []struct {
	name, kind string
	mutate     func(s *script)
}{
	{"skip", Skipped, func(s *script) { s.drop(0, "b", 17, 17) }},
	{"skip several", Skipped, func(s *script) { s.drop(3, "b", 40, 50) }},
	{"repeat", Repeated, func(s *script) { s.again(0, "b", 17, 17) }},
	{"repeat an old one", Repeated, func(s *script) { s.again(0, "b", 3, 17) }},
	{"swap", Reordered, func(s *script) { s.drop(0, "b", 17, 17); s.again(0, "b", 17, 18) }},
	{"swap the first of a connection", Reordered, func(s *script) { s.drop(3, "b", 31, 31); s.again(3, "b", 31, 32) }},
	{"drop at reconnect", LostAtReconnect, func(s *script) { s.drop(3, "b", 31, 31) }},
	{"open too far on", LostAtReconnect, func(s *script) {
		i := s.index(3, "b", 31)
		s.clients[3][i-1].id = 31
		s.drop(3, "b", 31, 31)
	}},
	{"open too far back", Repeated, func(s *script) {
		i := s.index(3, "b", 31)
		s.clients[3][i-1].id = 29
		s.insert(3, i, step{kind: delivered, feed: "b", id: 30, sum: sumAt("b", 30)})
	}},
	{"jump at trim", JumpedTrim, func(s *script) {
		s.clients[2] = slices.DeleteFunc(s.clients[2], func(s step) bool { return s.kind == gapped })
	}},
	{"wrong bytes to one client", WrongBytes, func(s *script) { s.clients[0][s.index(0, "b", 17)].sum++ }},
	{"wrong bytes of what is trimmed", WrongBytes, func(s *script) { s.clients[1][s.index(1, "a", 17)].sum++ }},
	{"wrong bytes in the store", WrongBytes, func(s *script) { s.sums["b"][17]++ }},
	{"an id given again", WrongBytes, func(s *script) {
		s.attempts = append(s.attempts, Attempt{Feed: "b", Key: "new", Sum: SumOf("", "new")})
		s.sums["b"][60] = SumOf("", "new")
	}},
	{"trimmed events come back", Resurrected, func(s *script) {
		i := slices.IndexFunc(s.clients[2], func(s step) bool { return s.kind == gapped })
		s.clients[2] = append(s.clients[2][:i], connection(0, 10, 60, "a")[3:]...)
		for j := range s.clients[2][i:] {
			s.clients[2][i+j].at += time.Second
		}
	}},
	{"trimmed events are stored again", Resurrected, func(s *script) { s.held["a"][0] = 1 }},
	{"lost acknowledged, at the end", LostAcknowledged, func(s *script) { s.held["b"][1] = 59 }},
	{"lost acknowledged, at the beginning", LostAcknowledged, func(s *script) { s.held["a"][0] = 24 }},
	{"stored, not delivered", Unfinished, func(s *script) { s.drop(0, "b", 60, 60) }},
	{"delivered, not stored", NotStored, func(s *script) {
		s.insert(0, s.index(0, "b", 60)+1, step{kind: delivered, feed: "b", id: 61, sum: SumOf("", "b never")})
	}},
	{"a hole in the store", Hole, func(s *script) { delete(s.sums["b"], 45) }},
	{"events missing at the store's end", Hole, func(s *script) {
		delete(s.sums["b"], 60)
		s.attempts = slices.DeleteFunc(s.attempts, func(a Attempt) bool { return a.Feed == "b" && a.ID == 60 })
	}},
	{"a key answered with two ids", KeyTwice, func(s *script) {
		again := *s.ack("b", 17)
		again.ID = 18
		s.attempts = append(s.attempts, again)
	}},
	{"a key stored twice", KeyTwice, func(s *script) {
		s.held["b"][1] = 61
		s.sums["b"][61] = sumAt("b", 17)
	}},
	{"an unacknowledged event stored twice", StoredTwice, func(s *script) {
		s.held["b"][1] = 61
		s.sums["b"][61] = sumAt("b", 45)
	}},
	{"an unacknowledged event stored twice, the first trimmed", StoredTwice, func(s *script) {
		s.ack("a", 17).Outcome = Unknown
		s.held["a"][1] = 61
		s.sums["a"][61] = sumAt("a", 17)
	}},
	{"an id acknowledged for two keys", IDTwice, func(s *script) { s.ack("b", 17).ID = 16 }},
	{"refused and stored", RefusedStored, func(s *script) {
		s.held["b"][1] = 61
		s.sums["b"][61] = SumOf("", "b refused")
	}},
	{"out of nowhere", Foreign, func(s *script) {
		s.held["b"][1] = 61
		s.sums["b"][61] = SumOf("", "nobody's")
	}},
	{"gap that says too much", LyingGap, mutateGap(func(g *feed.Gap) { g.Resumes++ })},
	{"gap that says too little", LyingGap, mutateGap(func(g *feed.Gap) { g.After++ })},
	{"gap for another reason", LyingGap, mutateGap(func(g *feed.Gap) { g.Reason = feed.Ahead })},
	{"gap over nothing", LyingGap, func(s *script) {
		at := s.index(0, "b", 17)
		s.insert(0, at, step{kind: gapped, feed: "b", gap: feed.Gap{After: 16, Resumes: 17, Reason: feed.Trimmed}})
	}},
	{"gap before its trim", LyingGap, func(s *script) {
		s.drop(0, "a", 11, 19)
		at := s.index(0, "a", 10)
		g := feed.Gap{After: 10, Resumes: scriptTrimmed, Reason: feed.Trimmed}
		s.insert(0, at+1, step{at: s.clients[0][at].at, kind: gapped, feed: "a", gap: g})
	}},
	{"event before the stream is open", BadStream, func(s *script) {
		s.clients[3] = slices.DeleteFunc(s.clients[3], func(s step) bool { return s.kind == opened && s.id == 30 })
	}},
	{"not a stream at all", BadStream, func(s *script) { s.insert(3, 5, step{kind: broken, broken: "an id of -1"}) }},
	{"a client that does not test", Overreached, func(s *script) {
		i := s.index(3, "b", 31)
		s.clients[3][i-2].id, s.clients[3][i-1].id = 31, 31
		s.drop(3, "b", 31, 31)
	}},
	{"a store that nobody looked at", Unread, func(s *script) { delete(s.held, "b") }},
	{"late", Late, func(s *script) {
		s.faults = []Fault{{Name: "paused", Bound: 50 * time.Millisecond}}
		for i := s.index(0, "b", 12); i < len(s.clients[0]); i++ {
			s.clients[0][i].at += 100 * time.Millisecond
		}
	}},
}

func mutateGap(mutate func(*feed.Gap)) func(*script) {
	return func(s *script) {
		i := slices.IndexFunc(s.clients[2], func(s step) bool { return s.kind == gapped })
		mutate(&s.clients[2][i].gap)
	}
}

// TestJudgeFindsBugs plants each bug into a run that is sound without it.
func TestJudgeFindsBugs(t *testing.T) {
	caught := make(map[string]bool)
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			s := soundScript()
			m.mutate(s)
			report := s.play().Judge()
			var found []string
			for _, f := range report.Findings {
				found = append(found, f.String())
			}
			if !slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Kind == m.kind }) {
				t.Errorf("%s is not found, but:\n%s", m.kind, strings.Join(found, "\n"))
			}
			if report.Violations != len(report.Findings) && report.Violations <= mostFindings {
				t.Errorf("counts %d violations and names %d", report.Violations, len(report.Findings))
			}
			caught[m.kind] = true
		})
	}
	for _, kind := range []string{Skipped, Repeated, Reordered, LostAtReconnect, JumpedTrim, LyingGap, WrongBytes, Resurrected,
		LostAcknowledged, NotStored, Hole, KeyTwice, StoredTwice, IDTwice, RefusedStored, Foreign, Unfinished, Late, BadStream, Overreached, Unread} {
		if !caught[kind] {
			t.Errorf("no bug was planted that is %s", kind)
		}
	}
}
