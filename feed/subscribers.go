package feed

// The subscriptions of a log.

func (l *log) attach(s *Subscription) {
	s.heard = l.ephemera.said.Load()
	l.subsMu.Lock()
	defer l.subsMu.Unlock()
	s.place = len(l.subs)
	l.subs = append(l.subs, s)
}

func (l *log) detach(s *Subscription) {
	l.subsMu.Lock()
	defer l.subsMu.Unlock()
	last := len(l.subs) - 1
	l.subs[s.place] = l.subs[last]
	l.subs[s.place].place = s.place
	l.subs[last] = nil
	l.subs = l.subs[:last]
}

// wake tells every subscription that there may be something to read.
func (l *log) wake() {
	l.subsMu.Lock()
	defer l.subsMu.Unlock()
	for _, s := range l.subs {
		s.wake()
	}
}
