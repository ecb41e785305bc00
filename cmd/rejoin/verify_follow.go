package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// habits are what tells one witness from another.
type habits struct {
	cut      time.Duration // after which, on average, it cuts its connection; 0: never
	old      float64       // the part of its connections that start from an older cursor than it has
	pause    time.Duration // between two events that it reads
	stall    time.Duration // for which it reads nothing, about once a second
	wait     time.Duration // between two connections, at most
	envelope bool          // it asks for envelopes
	types    []string      // of the events that it asks for; none for all
}

// witness is a subscriber that follows feeds over one connection after another,
// and writes down what each of them brings.
type witness struct {
	log    *feedtest.DeliveryLog
	at     places
	urls   []*url.URL // it connects to any of them
	client *http.Client
	random *rand.Rand
	habits habits
	// strict says that there is nothing between the server and the witness: a
	// stream is refused only for good, and never ends as if it were complete.
	strict    bool
	closing   bool          // some of its feeds get closed: it ends when all are
	ephemeral bool          // some events are not stored
	silence   time.Duration // after which a connection counts as dead
	heartbeat time.Duration // that it asks for; 0 for a third of that
	counts    *proofCounts
	hurry     atomic.Bool // no habits any more: what is left has to be read

	opened bool // the present connection has been
}

// run follows until ctx ends. It returns an error if there is no going on.
func (w *witness) run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := w.connect(ctx)
		w.log.Cut(time.Now())
		if errors.Is(err, errBroken) {
			w.log.Broke(err.Error(), time.Now())
		}
		if errors.Is(err, errNoGoing) {
			return err
		}
		if errors.Is(err, errClosed) {
			return nil
		}
		pause := 20*time.Millisecond + time.Duration(w.random.Int64N(int64(w.habits.wait)+1))
		if w.hurry.Load() {
			pause = 20 * time.Millisecond
		}
		_ = sleep(ctx, pause) // the loop looks at ctx
	}
	return nil
}

// request asks for what follows the cursors, or older ones.
func (w *witness) request(ctx context.Context) (*http.Request, error) {
	now := time.Now()
	w.log.Connects(now)
	old := w.random.Float64() < w.habits.old && !w.hurry.Load()
	for i := range w.at.all {
		f := &w.at.all[i]
		if f.known, f.closed = true, false; old {
			f.cursor -= feed.Cursor(w.random.Uint64N(min(uint64(f.cursor), 100) + 1))
		}
		w.log.Asks(f.feed, uint64(f.cursor), now)
	}
	u := w.urls[w.random.IntN(len(w.urls))].JoinPath("v1", "events")
	query := url.Values{"heartbeat": {cmp.Or(w.heartbeat, w.silence/3).String()}}
	if len(w.habits.types) > 0 {
		query.Set("types", strings.Join(w.habits.types, ","))
	}
	if w.at.many {
		query.Set("feed", w.at.names())
	} else {
		u = u.JoinPath("..", "feeds", w.at.all[0].feed, "events")
		if w.habits.envelope {
			query.Set("envelope", "true")
		}
	}
	inHeader := w.random.IntN(2) == 0
	if !inHeader {
		query.Set("lastEventId", w.at.cursor())
	}
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	if inHeader {
		req.Header.Set("Last-Event-ID", w.at.cursor())
	}
	return req, nil
}

func (w *witness) connect(ctx context.Context) error {
	w.counts.connections.Add(1)
	w.opened = false
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watch := time.AfterFunc(w.silence, cancel)
	defer watch.Stop()
	if w.habits.cut > 0 {
		cut := time.AfterFunc(time.Duration(w.random.ExpFloat64()*float64(w.habits.cut)), func() {
			if !w.hurry.Load() {
				cancel()
			}
		})
		defer cut.Stop()
	}
	req, err := w.request(ctx)
	if err != nil {
		return err
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if err := w.accept(resp); err != nil {
		return err
	}
	return w.read(ctx, newBlockReader(watchedReader{resp.Body, func() { watch.Reset(w.silence) }}))
}

// accept judges the head of an answer.
func (w *witness) accept(resp *http.Response) error {
	switch err := requireStream(resp); {
	case err == nil:
		return nil
	case errors.Is(err, errClosed) && w.closing:
		w.log.TurnedAway(time.Now())
		return err
	case errors.Is(err, errClosed):
		return broken("204 for feeds that nobody closed")
	case resp.StatusCode != http.StatusOK && !temporary(resp.StatusCode):
		return fmt.Errorf("%w: subscribe: %w", errNoGoing, err)
	case w.strict:
		return broken("an event stream is refused: %w", err)
	default:
		return err
	}
}

func (w *witness) read(ctx context.Context, blocks *blockReader) error {
	stalls := time.Now().Add(time.Second)
	for {
		b, err := blocks.next()
		switch {
		case err == io.EOF && w.opened && w.strict && !w.at.closed():
			return broken("the stream ended as if it were complete")
		case err != nil:
			return err
		}
		if err := w.take(b, time.Now()); err != nil {
			return err
		}
		if w.hurry.Load() {
			continue
		}
		if w.habits.stall > 0 && time.Now().After(stalls) {
			_ = sleep(ctx, time.Duration(w.random.Int64N(int64(w.habits.stall)))) // what then fails is the next read
			stalls = time.Now().Add(time.Second / 2).Add(time.Duration(w.random.Int64N(int64(time.Second))))
		}
		if w.habits.pause > 0 {
			_ = sleep(ctx, w.habits.pause) // the same
		}
	}
}

// take writes down one block.
func (w *witness) take(b streamBlock, now time.Time) error {
	switch {
	case b.kind == "feed.open":
		return w.open(b, now)
	case !w.opened:
		return broken("%s came before feed.open", describe(b))
	case b.kind == "feed.gap":
		return w.gap(b, now)
	case b.kind == "feed.cursor":
		at, err := w.cursors(b)
		if err != nil {
			return err
		}
		return w.others(b, at, -1, now)
	case b.kind == "feed.closed" && w.closing:
		return w.close(b, now)
	case b.kind == "feed.expired":
		return errExpired
	case isControl(b.kind):
		return broken("%s, which nobody asked for: %.200s", b.kind, b.data)
	}
	return w.event(b, now)
}

func (w *witness) cursors(b streamBlock) (map[int]feed.Cursor, error) {
	at, err := w.at.parse(b.id)
	if err != nil || len(at) != len(w.at.all) || !b.hasID {
		return nil, broken("%s has the cursor %.200q (%v)", describe(b), b.id, err)
	}
	return at, nil
}

// others demands that a block leaves the feeds where they are that it is not
// about, but for what the filter keeps from the witness.
func (w *witness) others(b streamBlock, at map[int]feed.Cursor, about int, now time.Time) error {
	for i := range w.at.all {
		f := &w.at.all[i]
		switch {
		case i == about || at[i] == f.cursor:
		case len(w.habits.types) == 0:
			return broken("%s takes %s from event %d to %d", describe(b), f.feed, f.cursor, at[i])
		default:
			w.log.Passed(f.feed, uint64(at[i]), now)
			f.cursor = at[i]
		}
	}
	return nil
}

func (w *witness) open(b streamBlock, now time.Time) error {
	at, err := w.cursors(b)
	if err != nil {
		return err
	}
	w.opened = true
	for i := range w.at.all {
		f := &w.at.all[i]
		f.cursor = at[i]
		w.log.Opened(f.feed, uint64(f.cursor), now)
	}
	return nil
}

func (w *witness) gap(b streamBlock, now time.Time) error {
	var gap struct {
		Feed    string
		After   feed.Cursor `json:",string"`
		Resumes uint64
		Reason  feed.GapReason
	}
	if err := json.Unmarshal([]byte(b.data), &gap); err != nil || gap.Resumes == 0 {
		return broken("feed.gap is %.200s", b.data)
	}
	i := max(0, w.at.index(gap.Feed))
	at, err := w.cursors(b)
	if err != nil {
		return err
	}
	if gap.Feed != w.at.all[i].feed || uint64(at[i])+1 != gap.Resumes {
		return broken("feed.gap %.200s has the cursor %.200q", b.data, b.id)
	}
	w.log.Gap(gap.Feed, feed.Gap{After: gap.After, Resumes: gap.Resumes, Reason: gap.Reason}, now)
	if err := w.others(b, at, i, now); err != nil {
		return err
	}
	w.at.all[i].cursor = at[i]
	return nil
}

func (w *witness) close(b streamBlock, now time.Time) error {
	var end struct {
		Feed string
		Last uint64
	}
	at, err := w.cursors(b)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(b.data), &end); err != nil {
		return broken("feed.closed is %.200s", b.data)
	}
	i := w.at.index(end.Feed)
	if i < 0 || uint64(at[i]) != end.Last {
		return broken("feed.closed %.200s has the cursor %.200q", b.data, b.id)
	}
	w.log.Closed(end.Feed, end.Last, now)
	w.at.all[i].cursor, w.at.all[i].closed = at[i], true
	return w.others(b, at, i, now)
}

func (w *witness) event(b streamBlock, now time.Time) error {
	about, id, kind, data, err := w.content(b)
	if err != nil {
		return err
	}
	f := &w.at.all[about]
	sum := feedtest.SumOf(kind, data)
	if !b.hasID && w.ephemeral {
		if id != nil {
			return broken("event %d of %s leaves the cursor where it is", *id, f.feed)
		}
		w.log.Hinted(f.feed, sum, now)
		return nil
	}
	at, err := w.cursors(b)
	if err != nil {
		return err
	}
	if w.inEnvelopes() && (id == nil || at[about] != *id) {
		return broken("%s is in the envelope %.200s", describe(b), b.data)
	}
	f.cursor = at[about]
	w.counts.delivered.Add(1)
	w.log.Delivered(f.feed, uint64(f.cursor), sum, now)
	return w.others(b, at, about, now)
}

func (w *witness) inEnvelopes() bool { return w.at.many || w.habits.envelope }

// content reads an event: which feed it is of, the id that an envelope has, and
// what was published.
func (w *witness) content(b streamBlock) (about int, id *feed.Cursor, kind, data string, err error) {
	kind, data = b.kind, b.data
	if w.inEnvelopes() {
		var e struct {
			envelope
			Type string
		}
		if err := json.Unmarshal([]byte(b.data), &e); err != nil || len(e.Data) == 0 {
			return 0, nil, "", "", broken("%s is not in an envelope: %.200s", describe(b), b.data)
		}
		if about = w.at.index(e.Feed); about < 0 {
			return 0, nil, "", "", broken("%s is of %.100q, which is not followed", describe(b), e.Feed)
		}
		id, kind, data = e.ID, e.Type, dataOf(e.Data)
	}
	if kind == "message" {
		kind = "" // what envelopes call it
	}
	return about, id, kind, data, nil
}
