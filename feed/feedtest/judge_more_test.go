package feedtest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// TestJudgeExcuses: behaviour that is allowed yields no finding.
func TestJudgeExcuses(t *testing.T) {
	later := func(s *script) {
		for i := s.index(0, "b", 12); i < len(s.clients[0]); i++ {
			s.clients[0][i].at += 100 * time.Millisecond
		}
	}
	for _, test := range []struct {
		name   string
		change func(s *script, r *Recording)
		mutate func(s *script)
	}{
		{name: "a client that leaves", mutate: func(s *script) {
			s.drop(0, "b", 50, 60)
			s.left[0] = true
		}},
		{name: "a server that trims by itself", mutate: func(s *script) { s.trims = nil },
			change: func(_ *script, r *Recording) { r.Retention = true }},
		{name: "a delay within the bound", mutate: func(s *script) {
			s.faults = []Fault{{Name: "paused", Bound: 150 * time.Millisecond}}
			later(s)
		}},
		{name: "a delay that counts from the end of the fault", mutate: func(s *script) {
			s.faults = []Fault{{Name: "stopped", Bound: 120 * time.Millisecond, Stops: true}, {Name: "paused", Bound: time.Millisecond}}
			later(s)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := soundScript()
			test.mutate(s)
			r := s.play()
			if test.change != nil {
				test.change(s, r)
			}
			for _, f := range r.Judge().Findings {
				t.Error(f)
			}
		})
	}
}

// TestJudgeFound: a finding from outside counts like the judge's own.
func TestJudgeFound(t *testing.T) {
	r := soundScript().play()
	found := Finding{Kind: BadAnswer, Feed: "b", Detail: "a 409"}
	r.Found(found)
	if report := r.Judge(); report.Violations != 1 || report.Findings[0] != found {
		t.Errorf("got %+v", report.Findings)
	}
}

// TestJudgeDelays: a delivery counts under all faults that were active meanwhile.
func TestJudgeDelays(t *testing.T) {
	s := soundScript()
	s.faults = []Fault{{Name: "b"}, {Name: "a", Bound: time.Second}}
	report := s.play().Judge()
	if len(report.Faults) != 1 || !slices.Equal(report.Faults[0].Names, []string{"a", "b"}) || report.Faults[0].Bound != time.Second {
		t.Fatalf("got %+v", report.Faults)
	}
	// The events 10 to 19 of a feed are under way during the faults.
	if n := report.Faults[0].Count; n < 40 || n > 60 {
		t.Errorf("%d deliveries under the faults", n)
	}
	if worst := report.WorstByFault(); worst["a"] != worst["b"] || worst["a"] != report.Faults[0].Worst || worst["a"] == 0 {
		t.Errorf("the worst are %v", worst)
	}
}

// TestJudgeDelaysApart: one late delivery among many is no finding, unless it is
// judged apart.
func TestJudgeDelaysApart(t *testing.T) {
	for _, apart := range []bool{false, true} {
		s := soundScript()
		s.faults = []Fault{{Name: "paused", Bound: 50 * time.Millisecond}}
		var log *DeliveryLog
		r := s.play()
		for i := range 300 { // on time, and many
			log = r.Client(fmt.Sprint("other ", i), false)
			for _, step := range connection(0, 0, 60, "b") {
				step.play(log, r.began.Add(step.at))
			}
		}
		log = r.Client("late", false)
		if apart {
			log.Apart("of another kind", 0)
		}
		for _, step := range connection(0, 0, 60, "b") {
			if step.id >= 19 {
				step.at = max(step.at, 300*time.Millisecond)
			}
			step.play(log, r.began.Add(step.at))
		}
		report := r.Judge()
		if late := report.Violations == 1 && report.Findings[0].Kind == Late; late != apart {
			t.Errorf("apart %t: found %v", apart, report.Findings)
		}
	}
}

// TestJudgeDelaysApartInHealth: deliveries that are judged apart may have a bound of
// their own for the time without faults.
func TestJudgeDelaysApartInHealth(t *testing.T) {
	for bound, late := range map[time.Duration]bool{0: false, time.Microsecond: true, time.Second: false} {
		r := soundScript().play()
		log := r.Client("apart", false)
		log.Apart("of another kind", bound)
		for _, step := range connection(0, 0, 60, "b") {
			step.play(log, r.began.Add(step.at))
		}
		if report := r.Judge(); report.Violations > 0 != late {
			t.Errorf("bound %v: found %v", bound, report.Findings)
		}
	}
}

func TestDelays(t *testing.T) {
	var all, half Delays
	for i := 1; i <= 10_000; i++ {
		d := time.Duration(i) * 100 * time.Microsecond
		all.add(d)
		if i%2 == 0 {
			half.add(d)
		} else {
			defer half.add(d)
		}
	}
	for q, want := range map[float64]time.Duration{0.5: 500 * time.Millisecond, 0.99: 990 * time.Millisecond, 1: time.Second, 0: 100 * time.Microsecond} {
		if got := all.Quantile(q); got < want || got > want+want/8+time.Microsecond {
			t.Errorf("the quantile %v is %v, want %v", q, got, want)
		}
	}
	var both Delays
	both.Merge(&half)
	both.Merge(&half)
	if both.Count != 10_000 || both.Worst != time.Second {
		t.Errorf("merged: %d, %v", both.Count, both.Worst)
	}
	var none Delays
	if got := none.Quantile(0.99); got != 0 {
		t.Errorf("the quantile of nothing is %v", got)
	}
	for _, d := range []time.Duration{0, time.Microsecond, 7 * time.Microsecond, 8 * time.Microsecond, time.Hour} {
		if top := topOf(bucketOf(d)); top <= d || top > d+d/8+2*time.Microsecond {
			t.Errorf("%v counts as up to %v", d, top)
		}
	}
}

// TestDeliveryLogKeeps reads back any steps that were written.
func TestDeliveryLogKeeps(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	run := NewRecording()
	log := run.Client("c", false)
	var want []entry
	for range 50_000 {
		e := entry{kind: delivered, at: rnd.Int64N(1e9), feed: rnd.IntN(3), id: feed.ID(rnd.Uint64() >> rnd.IntN(64)), sum: Sum(rnd.Uint64())}
		at := run.began.Add(time.Duration(e.at) * time.Microsecond)
		if rnd.IntN(100) == 0 {
			e = entry{kind: broken, at: e.at, text: fmt.Sprint("text ", e.id)}
			log.Broke(e.text, at)
		} else {
			log.Delivered(fmt.Sprint("feed", e.feed), e.id, e.sum, at)
		}
		want = append(want, e)
	}
	place := make(map[int]int) // feeds are numbered as they come
	i := 0
	log.entries(func(got entry) {
		if want[i].kind == delivered {
			if _, ok := place[want[i].feed]; !ok {
				place[want[i].feed] = len(place)
			}
			want[i].feed = place[want[i].feed]
		}
		if got != want[i] {
			t.Fatalf("record %d is %+v, want %+v", i, got, want[i])
		}
		i++
	})
	if i != len(want) {
		t.Errorf("%d records of %d", i, len(want))
	}
}

// BenchmarkJudge records and judges deliveries, and reports the size of a log.
func BenchmarkJudge(b *testing.B) {
	const clients, events = 100, 10_000
	for b.Loop() {
		run := NewRecording()
		at := run.began
		sums := make([]Sum, events+1)
		for id := feed.ID(1); id <= events; id++ {
			sums[id] = SumOf("", fmt.Sprint(id))
			run.Attempted(Attempt{Feed: "a", Key: fmt.Sprint(id), Sum: sums[id], Outcome: Acknowledged, ID: id, At: at.Add(time.Duration(id) * time.Millisecond)})
		}
		run.Holds("a", 1, events)
		for id := feed.ID(1); id <= events; id++ {
			run.Held("a", id, sums[id])
		}
		bytes := 0
		for c := range clients {
			log := run.Client(fmt.Sprint(c), false)
			log.Connects(at)
			log.Opened("a", 0, at)
			for id := feed.ID(1); id <= events; id++ {
				log.Delivered("a", id, sums[id], at.Add(time.Duration(id)*time.Millisecond+time.Duration(c)*time.Microsecond))
			}
			bytes += len(log.chunks)*logChunk + len(log.tail)
		}
		report := run.Judge()
		if report.Violations > 0 || report.Deliveries != clients*events {
			b.Fatalf("%+v", report)
		}
		b.ReportMetric(float64(bytes)/(clients*events), "bytes/delivery")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(clients*events), "ns/delivery")
}
