package feed

import (
	"sync"
	"time"
)

// fillWorkers is how many reads for logs run at one time. The stores of this module
// answer 4 or 8 reads at one time: further ones would only wait there, ahead of the reads
// for subscribers.
const fillWorkers = 8

// fillTask is the task to fill a log. A log has one at most: see claimFill.
type fillTask struct {
	log  *log
	wait backoff // of the reads that have failed since the last page
}

// fillQueue holds the tasks that are due, and counts the workers that take them.
type fillQueue struct {
	mu      sync.Mutex
	due     []*fillTask
	workers int
}

// put puts a task at the end of the queue.
func (q *fillQueue) put(t *fillTask) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.due = append(q.due, t)
}

// hire reports whether one more worker may start, and counts it if so.
func (q *fillQueue) hire() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.workers == fillWorkers {
		return false
	}
	q.workers++
	return true
}

// take returns the task at the head of the queue. If there is none, it returns nil, and
// the worker that has called it ends.
func (q *fillQueue) take() *fillTask {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.due) == 0 {
		q.due = nil
		q.workers--
		return nil
	}
	t := q.due[0]
	q.due[0], q.due = nil, q.due[1:]
	return t
}

// fill queues a task, and starts a worker if there may be one more.
func (h *Hub) fill(t *fillTask) {
	h.fills.put(t)
	if h.fills.hire() {
		h.goWork(h.fillLoop)
	}
}

// fillLoop is a worker. It reads one page for each log in turn, until no task is due. A
// log whose read has failed waits outside the queue.
func (h *Hub) fillLoop() {
	for h.ctx.Err() == nil {
		t := h.fills.take()
		if t == nil {
			return
		}
		switch done, failed := h.fillPage(t.log); {
		case failed:
			time.AfterFunc(t.wait.next(), func() { h.fill(t) })
		case !done:
			t.wait = backoff{}
			h.fills.put(t)
		}
	}
}

// fillPage reads from the store one page of what a log lacks. done reports that the log
// has all that is known to exist, or that the hub has dropped the log. failed reports that
// the read failed, or that the store may have been replaced meanwhile.
func (h *Hub) fillPage(l *log) (done, failed bool) {
	if h.lookup(l.feed) != l {
		return true, false
	}
	w := l.toFill()
	epoch := h.epoch()
	p, same, err := h.readFill(l.feed, w)
	h.noteRead(h.ctx, err, l.feed, w.tail)
	if err != nil {
		h.failures.Add(1)
	}
	if err != nil || epoch != h.epoch() {
		return false, true
	}
	if !same {
		l.freeze(w)
		h.suspect(l)
	}
	grew, done := l.fill(w, p, time.Now())
	h.apply(l, logChange{grew: grew})
	if grew {
		h.counts.repairs.Add(1)
	}
	return done, false
}

// readFill reads what a filling log wants. same reports whether the page follows the
// event at the log's end: where the log knows that event, readFill reads it once more.
func (h *Hub) readFill(feed string, w fillRequest) (p Page, same bool, err error) {
	if w.tail > 0 && w.newest.id == w.tail {
		limit := pageLimit
		limit.Events++
		if p, err = h.store.Read(h.ctx, feed, w.tail-1, limit); err != nil {
			return p, true, err
		}
		if err = checkPage(feed, w.tail-1, p); err != nil {
			return p, true, err
		}
		if len(p.Events) > 0 && p.Events[0].ID == w.tail && stampOf(&p.Events[0]) != w.newest {
			return p, false, nil
		}
		if p.Last < w.tail || len(p.Events) != 1 {
			return p, p.Last >= w.tail, nil
		}
		// That event alone may have filled the page.
	}
	if p, err = h.store.Read(h.ctx, feed, w.tail, pageLimit); err == nil {
		err = checkPage(feed, w.tail, p)
	}
	return p, true, err
}

// fillRequest is what a filling log has to read: the events after tail, up to the id
// known.
type fillRequest struct {
	tail       ID
	known      ID
	generation int
	newest     stamp
}

func (l *log) toFill() fillRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fillRequest{l.tail, l.known, l.generation, l.newest}
}

// fill takes the page that was read for w. It reports whether subscribers have
// to look, and whether the log has now reached all that is known to exist; then
// it is no longer filling.
func (l *log) fill(w fillRequest, p Page, now time.Time) (grew, done bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.frozen {
		l.filling = false // the review fills the hole
		return false, true
	}
	if w.generation != l.generation {
		// The page is of the store that was replaced.
		l.filling = l.known > l.tail
		return false, !l.filling
	}
	before := l.tail
	l.first = max(l.first, p.First)
	if l.tail+1 < p.First {
		// Trimmed past the end of the log: nothing here is kept any more.
		l.discard(len(l.segments))
		l.base, l.tail = p.First-1, p.First-1
	}
	for i := range p.Events {
		if p.Events[i].ID == l.tail+1 {
			l.add(p.Events[i])
		}
	}
	if l.tail == w.tail && l.known == w.known {
		// No event exists past the end; the hint was wrong.
		l.known = l.tail
	}
	l.known = max(l.known, l.tail, p.Last)
	// A subscriber that waits past the end, for an event that does not exist, is now ahead.
	lowered := l.known < w.known
	if l.tail != before {
		l.grown = now
		l.trimToSize()
	}
	l.filling = l.known > l.tail
	return l.tail != before || lowered, !l.filling
}

// claimFill reports whether the log has to be filled and has no fillTask yet. The caller,
// which holds mu, then makes sure that it gets one.
func (l *log) claimFill() bool {
	if !l.loaded || l.filling || l.frozen || l.known <= l.tail {
		return false
	}
	l.filling = true
	return true
}

// freeze stops the log from taking or returning anything until it has been reviewed:
// at the log's end, the store has another event than the log.
func (l *log) freeze(w fillRequest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.generation == w.generation {
		l.suspect, l.frozen = true, true
	}
}

// backoff is how long to wait before the next try: longer each time, up to a
// bound that keeps recovery quick once the store is back.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, 25*time.Millisecond), time.Second)
	return b.last
}
