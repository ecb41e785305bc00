package feedtest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// run is a recording of one feed with ten events, those with even ids of the type
// "even", and of a client that is about to be judged.
type run struct {
	*Recording
	log *DeliveryLog
}

const runEvents = 10

func newRun() run {
	r := run{Recording: NewRecording()}
	r.Holds("a", 1, runEvents)
	for id := feed.ID(1); id <= runEvents; id++ {
		r.Attempted(Attempt{
			Feed: "a", Key: fmt.Sprint("k", id), Type: typeAt(id), Sum: sumAt("a", id), Outcome: Acknowledged, ID: id, Began: r.at(1), At: r.at(2),
		})
		r.Held("a", id, sumAt("a", id))
	}
	r.log = r.Client("client", true)
	r.log.Connects(r.at(3))
	r.log.Asks("a", 0, r.at(3))
	r.log.Opened("a", 0, r.at(4))
	return r
}

func typeAt(id feed.ID) string {
	if id%2 == 0 {
		return "even"
	}
	return ""
}

// at is a time of the run, in ms.
func (r run) at(ms int) time.Time { return r.began.Add(time.Duration(ms) * time.Millisecond) }

func (r run) deliver(ids ...feed.ID) {
	for _, id := range ids {
		r.log.Delivered("a", id, sumAt("a", id), r.at(5))
	}
}

func (r run) all() { r.deliver(1, 2, 3, 4, 5, 6, 7, 8, 9, 10) }

func (r run) close(last feed.ID) {
	r.HeldClosed("a", true)
	r.Closed(Close{Feed: "a", Asked: r.at(5), Done: r.at(6), Last: last})
}

func (r run) whisper(number int) Sum {
	sum := SumOf("", fmt.Sprint("whisper ", number))
	r.Sent(Ephemeral{Feed: "a", Sum: sum, Series: "s", Number: number, Gone: r.at(50)})
	return sum
}

// batch attempts one batch whose events are stored under these ids; 0 means not
// stored.
func (r run) batch(ids ...feed.ID) {
	held := make(map[feed.ID]Sum)
	for i, id := range ids {
		sum := sumAt("b", feed.ID(i))
		r.Attempted(Attempt{Feed: "b", Key: fmt.Sprint("batch/", i), Batch: "batch", Sum: sum, Began: r.at(1), At: r.at(2)})
		if id != 0 {
			held[id] = sum
		}
	}
	r.Holds("b", 1, feed.ID(len(held)))
	for _, id := range sortedKeys(held) {
		r.Held("b", id, held[id])
	}
}

// traffic are runs that are sound, and runs that are not.
var traffic = []struct {
	name, kind string // no kind: it is sound
	run        func(r run)
}{
	{"a filter", "", func(r run) { r.log.Filter("even"); r.deliver(2, 4, 6, 8, 10) }},
	{"a filter of which nothing is left", "", func(r run) { r.log.Filter("none"); r.log.Passed("a", 7, r.at(5)); r.log.Passed("a", 10, r.at(5)) }},
	{"a filter and a gap", "", func(r run) {
		r.Trimmed(Trim{Feed: "a", Before: 6, Asked: r.at(1)})
		r.log.Filter("even")
		r.deliver(2)
		r.log.Gap("a", feed.Gap{After: 3, Resumes: 6, Reason: feed.Trimmed}, r.at(5))
		r.deliver(6, 8, 10)
	}},
	{"a filter that loses an event", Skipped, func(r run) { r.log.Filter("even"); r.deliver(2, 4, 8, 10) }},
	{"a filter whose cursor passes an event", Skipped, func(r run) {
		r.log.Filter("even")
		r.deliver(2)
		r.log.Passed("a", 10, r.at(5))
	}},
	{"a filter that lets others pass", BadStream, func(r run) { r.log.Filter("even"); r.deliver(2, 3, 4, 6, 8, 10) }},
	{"a cursor that goes back", Repeated, func(r run) {
		r.log.Filter("even")
		r.deliver(2, 4)
		r.log.Passed("a", 3, r.at(5))
		r.deliver(6, 8, 10)
	}},
	{"a cursor past the end", NotStored, func(r run) { r.log.Filter("even"); r.deliver(2, 4, 6, 8, 10); r.log.Passed("a", 11, r.at(5)) }},

	{"a close", "", func(r run) {
		r.close(10)
		r.all()
		r.log.Closed("a", 10, r.at(7))
		r.log.Connects(r.at(8))
		r.log.Asks("a", 10, r.at(8))
		r.log.TurnedAway(r.at(8))
	}},
	{"a close of a feed that is open", NotClosed, func(r run) { r.all(); r.log.Closed("a", 10, r.at(7)) }},
	{"a close that comes too soon", Skipped, func(r run) { r.close(0); r.deliver(1, 2, 3); r.log.Closed("a", 10, r.at(7)) }},
	{"a close at another event", NotClosed, func(r run) { r.close(0); r.log.Closed("a", 9, r.at(7)); r.all() }},
	{"an event after the close", AfterClose, func(r run) { r.close(0); r.all(); r.log.Closed("a", 10, r.at(7)); r.deliver(10) }},
	{"an event stored after the one that closed", AfterClose, func(r run) { r.close(9); r.all() }},
	{"an event accepted after the close", AfterClose, func(r run) {
		r.close(0)
		r.Holds("a", 1, 11)
		for id := feed.ID(1); id <= 11; id++ {
			r.Held("a", id, sumAt("a", id))
		}
		r.HeldClosed("a", true)
		r.Attempted(Attempt{Feed: "a", Key: "late", Sum: sumAt("a", 11), Outcome: Acknowledged, ID: 11, Began: r.at(20), At: r.at(21)})
		r.all()
		r.deliver(11)
	}},
	{"a feed that opens again", NotClosed, func(r run) { r.close(0); r.HeldClosed("a", false); r.all() }},
	{"a client that is turned away too soon", NotClosed, func(r run) {
		r.close(0)
		r.all()
		r.log.Connects(r.at(8))
		r.log.Asks("a", 9, r.at(8))
		r.log.TurnedAway(r.at(8))
	}},

	{"ephemeral events, some lost", "", func(r run) {
		r.log.Hinted("a", r.whisper(1), r.at(5))
		r.log.Hinted("a", r.whisper(4), r.at(5))
		r.all()
	}},
	{"an ephemeral event twice", Repeated, func(r run) {
		r.log.Hinted("a", r.whisper(1), r.at(5))
		r.log.Hinted("a", r.whisper(1), r.at(5))
		r.all()
	}},
	{"ephemeral events out of order", Reordered, func(r run) {
		r.log.Hinted("a", r.whisper(2), r.at(5))
		r.log.Hinted("a", r.whisper(1), r.at(5))
		r.all()
	}},
	{"an ephemeral event of nobody", Foreign, func(r run) { r.log.Hinted("a", 1, r.at(5)); r.all() }},
	{"an ephemeral event of another type", BadStream, func(r run) { r.log.Filter("even"); r.log.Hinted("a", r.whisper(1), r.at(5)); r.deliver(2, 4, 6, 8, 10) }},
	{"a stored event without its id", BadStream, func(r run) { r.log.Hinted("a", sumAt("a", 1), r.at(5)); r.all() }},
	{"an ephemeral event that is long over", Stale, func(r run) {
		r.all()
		r.log.Connects(r.at(60))
		r.log.Opened("a", 10, r.at(60))
		r.log.Hinted("a", r.whisper(1), r.at(60))
	}},

	{"pages backwards", "", func(r run) {
		r.all()
		r.Trimmed(Trim{Feed: "a", Before: 3, Asked: r.at(6)})
		r.log.Connects(r.at(7))
		r.log.Looked("a", 4, sumAt("a", 4), r.at(7))
		r.log.Looked("a", 3, sumAt("a", 3), r.at(7))
		r.log.LookedBelow("a", 3, r.at(7))
	}},
	{"a page with other bytes", WrongBytes, func(r run) { r.all(); r.log.Looked("a", 4, sumAt("a", 5), r.at(7)) }},
	{"a page that ends too soon", Skipped, func(r run) { r.all(); r.log.LookedBelow("a", 3, r.at(7)) }},

	{"a batch", "", func(r run) { r.all(); r.batch(1, 2) }},
	{"a batch that is not there", "", func(r run) { r.all(); r.batch(0, 0) }},
	{"half a batch", TornBatch, func(r run) { r.all(); r.batch(1, 0) }},
	{"a batch out of order", TornBatch, func(r run) { r.all(); r.batch(2, 1) }},

	{"another store", "", func(r run) { r.all(); r.Elsewhere(other()) }},
	{"an event of another store", OtherStore, func(r run) { r.Elsewhere(other()); r.log.Delivered("a", 1, SumOf("", "other"), r.at(5)); r.log.Leave() }},
	{"an ephemeral event of another store", OtherStore, func(r run) { r.all(); r.Elsewhere(other()); r.log.Hinted("a", SumOf("", "whisper"), r.at(5)) }},
	{"another store's event in the store", OtherStore, func(r run) {
		r.all()
		r.Elsewhere(other())
		r.Holds("a", 11, 11)
		r.Trimmed(Trim{Feed: "a", Before: 11})
		r.Held("a", 11, SumOf("", "other"))
		r.log.Leave()
	}},
}

// other has an event in common with a run, and two of its own.
func other() *Recording {
	r := NewRecording()
	r.Attempted(Attempt{Feed: "a", Key: "k1", Sum: sumAt("a", 1)})
	r.Attempted(Attempt{Feed: "a", Key: "other", Sum: SumOf("", "other")})
	r.Sent(Ephemeral{Feed: "a", Sum: SumOf("", "whisper")})
	return r
}

// TestJudgeTraffic plants bugs into runs of every kind of traffic, and demands
// that what is sound stays without a finding.
func TestJudgeTraffic(t *testing.T) {
	for _, test := range traffic {
		t.Run(test.name, func(t *testing.T) {
			r := newRun()
			test.run(r)
			report := r.Judge()
			found := slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Kind == test.kind })
			if test.kind == "" && report.Violations > 0 || test.kind != "" && !found {
				t.Errorf("want %q, found %v", test.kind, report.Findings)
			}
		})
	}
}
