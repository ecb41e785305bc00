package feed

import "time"

// Stage is a part of the way of an event, from its publisher to its subscribers.
type Stage string

// The stages that a [Tracer] is told of.
const (
	StageCommit  Stage = "commit"  // the append of the event to the store
	StageTell    Stage = "tell"    // telling the bus of it
	StageDeliver Stage = "deliver" // from its time until a node first encodes it for a subscriber, in each encoding
)

// Tracer is told of the stages of events that have a Trace. If a publication has several
// events, it is told of the first. It does not block.
type Tracer interface {
	// Trace reports a stage that ends now, and the error that it ended with.
	Trace(stage Stage, e *Event, began time.Time, err error)
}

// trace reports a stage of the events that have a Trace, once for each Trace. A zero
// began stands for the time of the event.
func trace(t Tracer, stage Stage, events []Event, began time.Time, err error) {
	if t == nil {
		return
	}
	last := ""
	for i := range events {
		e := &events[i]
		if e.Trace == "" || e.Trace == last {
			continue
		}
		last = e.Trace
		if began.IsZero() {
			t.Trace(stage, e, e.Time, err)
		} else {
			t.Trace(stage, e, began, err)
		}
	}
}
