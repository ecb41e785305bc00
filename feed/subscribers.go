package feed

// audience is the subscriptions to a log that are on one lane. A subscription
// that leaves is replaced by the last one, so that calling them all is a walk
// along a slice.
type audience struct {
	log        *log
	dispatcher *Dispatcher

	subs   []*Subscription // in order of arrival, until one leaves; under the log's subsMu
	queued bool            // to be passed through; under the lane's mu

	// Of the lane's Step alone.
	passing   bool // a pass is under way, or to begin
	again     bool // another one has to follow
	remaining int  // subs that the pass has yet to call: the first ones
}

func (l *log) attach(s *Subscription) {
	s.ephemeralSeen = l.ephemera.total.Load()
	l.subsMu.Lock()
	defer l.subsMu.Unlock()
	a := l.audience(s.subscriber.dispatcher)
	s.index = int32(len(a.subs))
	a.subs = append(a.subs, s)
}

// audience returns the log's audience on the lane. The caller holds subsMu.
func (l *log) audience(lane *Dispatcher) *audience {
	for _, a := range l.audiences {
		if a.dispatcher == lane {
			return a
		}
	}
	a := &audience{log: l, dispatcher: lane}
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

// wake has every subscription looked after: there may be something to read.
func (l *log) wake() {
	l.subsMu.Lock()
	defer l.subsMu.Unlock()
	for _, a := range l.audiences {
		if len(a.subs) > 0 {
			a.dispatcher.grew(a)
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
