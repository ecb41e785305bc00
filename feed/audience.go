package feed

// audience is the subscriptions to one log that one dispatcher notifies. When a
// subscription leaves, the last one takes its place, so that notifying them all is a
// walk along a slice.
type audience struct {
	log        *log
	dispatcher *Dispatcher

	subs   []*Subscription // under the log's subsMu; in order of arrival, until one leaves
	queued bool            // the dispatcher has it in grown; under the dispatcher's mu

	// Only the dispatcher's Step uses these.
	passing   bool // a pass is under way, or about to begin
	again     bool // another pass has to follow
	remaining int  // how many subs, from the first on, the pass has yet to notify
}

func (l *log) attach(s *Subscription) {
	s.ephemeralSeen = l.ephemera.total.Load()
	l.subsMu.Lock()
	defer l.subsMu.Unlock()
	a := l.audience(s.subscriber.dispatcher)
	s.index = int32(len(a.subs))
	a.subs = append(a.subs, s)
}

// audience returns the log's audience at the dispatcher. The caller holds subsMu.
func (l *log) audience(d *Dispatcher) *audience {
	for _, a := range l.audiences {
		if a.dispatcher == d {
			return a
		}
	}
	a := &audience{log: l, dispatcher: d}
	l.audiences = append(l.audiences, a)
	return a
}

func (l *log) detach(s *Subscription) {
	l.subsMu.Lock()
	defer l.subsMu.Unlock()
	a := l.audience(s.subscriber.dispatcher)
	last := len(a.subs) - 1
	a.subs[s.index] = a.subs[last]
	a.subs[s.index].index = s.index
	a.subs[last] = nil
	a.subs = a.subs[:last]
}

// wake makes every subscriber poll: there may be something to read.
func (l *log) wake() {
	l.subsMu.Lock()
	defer l.subsMu.Unlock()
	for _, a := range l.audiences {
		if len(a.subs) > 0 {
			a.dispatcher.addGrown(a)
		}
	}
}

func (l *log) subscribers() (n int) {
	l.subsMu.Lock()
	defer l.subsMu.Unlock()
	for _, a := range l.audiences {
		n += len(a.subs)
	}
	return n
}
