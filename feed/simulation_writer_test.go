package feed_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/rejoin/rejoin/feed"
)

// writer publishes, one call at a time.
type writer struct {
	name   string
	sent   int
	keys   int
	keyed  *feed.Publication // the last that it has published with a key
	cancel context.CancelFunc

	mu   sync.Mutex
	busy bool
}

func (wr *writer) isBusy() bool {
	wr.mu.Lock()
	defer wr.mu.Unlock()
	return wr.busy
}

// publish makes a writer publish a batch on a node.
func (w *world) publish(wr *writer, n *node, b feed.Publication) {
	if b.Key != "" {
		wr.keyed = &b
		w.checker.Keyed(b.Feed, b.Key, b.Drafts...)
	}
	ctx, cancel := context.WithCancel(context.Background())
	wr.cancel, wr.busy = cancel, true
	go func() {
		defer cancel()
		result, err := n.pub.PublishBatch(ctx, b)
		if w.plan.answer != nil {
			result, err = w.plan.answer(result, err)
		}
		w.judge(wr, n, b, result, err)
		wr.mu.Lock()
		defer wr.mu.Unlock()
		wr.busy = false
	}()
}

// judge checks the answer of a publish against what a publisher promises.
func (w *world) judge(wr *writer, n *node, b feed.Publication, result feed.Result, err error) {
	last, conditional := errors.AsType[*feed.LastError](err)
	switch {
	case n.dead.Load() || errors.Is(err, feed.ErrUncertain):
		w.allow(b)
		w.checker.Unsure(b.Drafts...)
		if err != nil && strings.Contains(err.Error(), "has not ended") {
			w.late(b)
		}
	case err == nil:
		w.allow(b)
		w.acked(wr, b, result)
	case conditional:
		if b.IfLast == nil || last.Last == *b.IfLast {
			w.gate.fault(fmt.Errorf("%s: refused because the last event is %d", wr.name, last.Last))
		}
		w.refuse(b, err)
	case errors.Is(err, feed.ErrClosed):
		w.checker.RefusedClosed(b.Feed)
		w.refuse(b, err)
	case expected(err):
		// An earlier call may have stored a batch with a key, even if this one has
		// not.
		if b.Key == "" {
			w.refuse(b, err)
		}
	default:
		w.gate.fault(fmt.Errorf("%s: publish failed: %w", wr.name, err))
	}
}

func (w *world) acked(wr *writer, b feed.Publication, result feed.Result) {
	events := result.Events
	switch {
	case b.Key != "":
		w.checker.AckedKey(b.Feed, b.Key, result)
	case result.Replayed:
		w.gate.fault(fmt.Errorf("%s: was answered as before, without a key", wr.name))
	default:
		w.checker.Acked(events...)
	}
	if len(events) != len(b.Drafts) {
		w.gate.fault(fmt.Errorf("%s: published %d drafts, got %d events", wr.name, len(b.Drafts), len(events)))
		return
	}
	for i, d := range b.Drafts {
		if e := events[i]; e.Feed != d.Feed || e.Type != d.Type || e.Data != d.Data {
			w.gate.fault(fmt.Errorf("%s: draft %d was answered with event %d of %s", wr.name, i, e.ID, e.Feed))
		}
	}
	if b.IfLast != nil && !result.Replayed && len(events) > 0 && events[0].ID != *b.IfLast+1 {
		w.gate.fault(fmt.Errorf("%s: got event %d on condition that the last is %d", wr.name, events[0].ID, *b.IfLast))
	}
}

// refuse notes that the drafts must not be stored, and allow that they may be.
func (w *world) refuse(b feed.Publication, err error) {
	w.refusedMu.Lock()
	defer w.refusedMu.Unlock()
	for _, d := range b.Drafts {
		if !w.underWay[d.Data] {
			w.refused[d.Data] = err
		}
	}
}

// late notes that a commit of the drafts is still under way: they may be stored yet,
// even if another try fails.
func (w *world) late(b feed.Publication) {
	w.refusedMu.Lock()
	defer w.refusedMu.Unlock()
	for _, d := range b.Drafts {
		w.underWay[d.Data] = true
	}
}

func (w *world) allow(b feed.Publication) {
	w.refusedMu.Lock()
	defer w.refusedMu.Unlock()
	for _, d := range b.Drafts {
		delete(w.refused, d.Data)
	}
}

// ballast is the text that the data of large events is cut from: each piece differs,
// and all of them together cost no memory.
var ballast = func() string {
	var b []byte
	for i := range 8000 {
		b = fmt.Appendf(b, "%07d.", i)
	}
	return string(b)
}()

func (w *world) draft(wr *writer, name string) feed.Draft {
	wr.sent++
	d := feed.Draft{Feed: name}
	if at := 8 * w.drafts; w.plan.large > 0 && at+w.plan.large <= len(ballast) {
		d.Data = ballast[at : at+w.plan.large]
		w.drafts++
	} else {
		d.Data = wr.name + "-" + strconv.Itoa(wr.sent)
	}
	if w.chance(30) {
		d.Type = "note"
	}
	return d
}

// batch makes up a batch for a writer to publish: many events, or none if it closes the
// feed.
func (w *world) batch(wr *writer, name string, many int) feed.Publication {
	b := feed.Publication{Feed: name}
	if w.plan.closes && w.chance(4) {
		b.Close = true
		many = w.rng.IntN(2)
	}
	for range many {
		b.Drafts = append(b.Drafts, w.draft(wr, name))
	}
	if w.plan.keys && w.chance(50) {
		wr.keys++
		b.Key = wr.name + "-" + strconv.Itoa(wr.keys)
	}
	if w.plan.keys && w.chance(20) {
		last := w.bounds(name).Last + feed.ID(w.rng.IntN(3)/2)
		b.IfLast = &last
	}
	return b
}
