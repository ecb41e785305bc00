package feedtest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// The kinds of findings: each is a promise that was broken.
const (
	Skipped          = "skipped"           // an event was left out of a connection
	Repeated         = "repeated"          // an event came again
	Reordered        = "reordered"         // an event came after a later one
	LostAtReconnect  = "lost at reconnect" // a connection starts behind what the client has
	JumpedTrim       = "jumped a trim"     // trimmed events were passed without a gap
	LyingGap         = "lying gap"         // a gap does not say what is missing
	WrongBytes       = "wrong bytes"       // an id stands for different bytes in different places
	Resurrected      = "resurrected"       // what was trimmed is there again
	LostAcknowledged = "lost acknowledged" // acknowledged, and neither stored nor trimmed
	NotStored        = "not stored"        // delivered, and not stored
	Hole             = "hole"              // the store's ids are not dense
	KeyTwice         = "key twice"         // a key has two ids
	StoredTwice      = "stored twice"      // never acknowledged, and there more than once
	IDTwice          = "id twice"          // an id was acknowledged for two events
	RefusedStored    = "refused, yet stored"
	Foreign          = "foreign"      // nobody published it
	Unfinished       = "unfinished"   // the client never got all
	Late             = "late"         // more delay than the bound
	BadStream        = "bad stream"   // not what a stream may carry
	BadAnswer        = "bad answer"   // not what a publish may be answered
	Overreached      = "overreached"  // the client itself asked for what it had not seen
	Unread           = "unread store" // the test did not look at what the store holds
	NotClosed        = "not closed"   // a feed was called closed that is not, or not there yet
	AfterClose       = "after the close"
	TornBatch        = "torn batch" // a part of a batch is stored, or it is out of order
	Stale            = "stale"      // an ephemeral event came to who connected long after it
	OtherStore       = "of another store"
)

// Finding is a broken promise.
type Finding struct {
	Kind   string  `json:"kind"`
	Feed   string  `json:"feed,omitempty"`
	Client string  `json:"client,omitempty"`
	ID     feed.ID `json:"id,omitempty"`
	Detail string  `json:"detail"`
}

func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(f.Kind)
	for _, part := range []string{f.Client, f.Feed} {
		if part != "" {
			b.WriteString(": " + part)
		}
	}
	return b.String() + ": " + f.Detail
}

// mostFindings bounds what is kept: the first ones tell the story.
const mostFindings = 50

// Report is what a run amounted to.
type Report struct {
	Feeds        int
	Acknowledged int // events
	Unknown      int // events that were never acknowledged
	Clients      int
	Connections  int
	Deliveries   int // each was checked
	Gaps         int
	Ephemeral    int // deliveries of events that are not stored
	Replays      int // deliveries of what was acknowledged before the connection opened
	Violations   int // all that were found
	Kinds        map[string]int
	Findings     []Finding // the first of them
	Health       Delays    // of deliveries that no fault overlaps
	Faults       []FaultDelays
}

// FaultDelays are the delays of deliveries that the same faults overlap.
type FaultDelays struct {
	Names []string // sorted
	Apart string   // see [DeliveryLog.Apart]
	Bound time.Duration
	Delays
}

// judge is a judgement in progress.
type judge struct {
	*Recording
	report Report
	truths map[string]*truth
	faults []Fault
	delays map[string]*FaultDelays
}

// Judge judges the recording. The run has to be over. It takes time in
// proportion to the deliveries.
func (r *Recording) Judge() *Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	j := &judge{Recording: r, truths: make(map[string]*truth), faults: r.faults, delays: make(map[string]*FaultDelays)}
	j.report.Feeds, j.report.Clients, j.report.Kinds = len(r.feeds), len(r.clients), make(map[string]int)
	for _, f := range r.found {
		j.find(f)
	}
	for _, name := range sortedKeys(r.feeds) {
		j.truths[name] = j.judgeFeed(r.feeds[name])
	}
	for _, log := range r.clients {
		j.judgeClient(log)
	}
	for _, key := range sortedKeys(r.batches) {
		j.judgeBatch(key, r.batches[key])
	}
	for _, key := range sortedKeys(j.delays) {
		d := j.delays[key]
		if p99 := d.Quantile(0.99); p99 > d.Bound {
			j.find(Finding{Kind: Late, Detail: fmt.Sprintf("under %s, 1 of 100 deliveries took %v or more, the bound is %v", key, p99, d.Bound)})
		}
		j.report.Faults = append(j.report.Faults, *d)
	}
	return &j.report
}

func (j *judge) find(f Finding) {
	j.report.Violations++
	j.report.Kinds[f.Kind]++
	if len(j.report.Findings) < mostFindings {
		j.report.Findings = append(j.report.Findings, f)
	}
}

// delay enters how long after its acknowledgement, both in µs, an event was
// delivered to a client.
func (j *judge) delay(acked, at int64, client *DeliveryLog) {
	base, bound := acked, time.Duration(0)
	var names []string
	for _, f := range j.faults {
		until := j.since(f.Until)
		if acked >= until+f.Settle.Microseconds() || at <= j.since(f.From) {
			continue
		}
		if names = append(names, f.Name); f.Stops {
			base = max(base, until)
		}
		bound = max(bound, f.Bound)
	}
	took := time.Duration(at-base) * time.Microsecond
	apart := client.apart
	switch {
	case len(names) > 0:
	case client.bound == 0:
		j.report.Health.add(took)
		return
	default:
		bound = client.bound
	}
	slices.Sort(names)
	names = slices.Compact(names)
	key := cmp.Or(strings.Join(names, " + "), "no fault")
	if apart != "" {
		key += ", to clients " + apart
	}
	d := j.delays[key]
	if d == nil {
		d = &FaultDelays{Names: names, Apart: apart, Bound: bound}
		j.delays[key] = d
	}
	d.Bound = max(d.Bound, bound)
	d.add(took)
}
