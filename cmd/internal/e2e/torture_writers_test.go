package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/feedtest"
)

// tortureWriters is how many applications append in SQL, and how many enqueue.
const tortureWriters = 2

// sqlWriter is an application that publishes in transactions of its own, past the nodes.
// A transaction is a batch: all of its events are stored or none, those of a feed in
// their order. It may be rolled back.
type sqlWriter struct {
	s        *schedule
	name     string
	enqueues bool
	random   *rand.Rand
	db       *pgx.Conn // nil if it has none
}

// queuedEvent is an event that was enqueued and committed. Its id is known when it has
// been numbered.
type queuedEvent struct {
	feedtest.Attempt
	must bool // nothing is trimmed in its feed
}

// startWriters starts the applications, if the world has Postgres.
func (s *schedule) startWriters(ctx context.Context) {
	if s.world.postgres == nil {
		return
	}
	for i := range 2 * tortureWriters {
		w := &sqlWriter{s: s, name: fmt.Sprintf("t%d-writer-%d", s.seed, i), enqueues: i%2 == 1, random: rand.New(rand.NewPCG(s.seed, 600+uint64(i)))}
		s.publishers.Go(func() { w.run(ctx) })
	}
}

func (w *sqlWriter) run(ctx context.Context) {
	defer w.hangUp()
	for n := 1; ctx.Err() == nil; n++ {
		w.transact(n)
		_ = sleep(ctx, time.Duration(float64(120*time.Millisecond*slower())*(0.5+w.random.Float64()))) // the loop looks at ctx
	}
}

func (w *sqlWriter) hangUp() {
	if w.db != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.db.Close(ctx) // it may be dead
		w.db = nil
	}
}

// transact runs one transaction and writes down what became of its events.
func (w *sqlWriter) transact(n int) {
	feeds := slices.Concat(w.s.feeds, w.s.written, w.s.written)
	batch := fmt.Sprintf("%s-transaction%d", w.name, n)
	events := make([]feedtest.Attempt, 1+w.random.IntN(4))
	data := make(map[string]string)
	for i := range events {
		key := fmt.Sprintf("%s/%d", batch, i)
		events[i] = feedtest.Attempt{Feed: feeds[w.random.IntN(len(feeds))], Key: key, Batch: batch, Began: time.Now()}
		data[key] = fmt.Sprintf("%s of %s %s", key, w.name, strings.Repeat("·", w.random.IntN(100)))
		events[i].Sum = feedtest.SumOf("", data[key])
	}
	// Two that lock feeds in different order would deadlock, which another test tries.
	slices.SortStableFunc(events, func(a, b feedtest.Attempt) int { return strings.Compare(a.Feed, b.Feed) })
	outcome := w.store(events, data)
	for i := range events {
		e := events[i]
		e.Outcome, e.At = outcome, time.Now()
		if w.enqueues && outcome == feedtest.Acknowledged {
			e.Outcome = feedtest.Unknown // for now
			w.s.mu.Lock()
			w.s.queued = append(w.s.queued, queuedEvent{e, slices.Contains(w.s.written, e.Feed)})
			w.s.mu.Unlock()
		}
		w.s.recording.Attempted(e)
	}
}

// store stores the events, and sets the ids of those that it appends. It makes one
// attempt: an application knows what to do if it fails.
func (w *sqlWriter) store(events []feedtest.Attempt, data map[string]string) feedtest.Outcome {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second*slower())
	defer cancel()
	if w.db == nil {
		db, err := pgx.Connect(ctx, w.s.world.database)
		if err != nil {
			return feedtest.Refused
		}
		w.db = db
	}
	outcome, err := w.transaction(ctx, events, data)
	if err != nil {
		w.hangUp() // which also rolls back
	}
	return outcome
}

func (w *sqlWriter) transaction(ctx context.Context, events []feedtest.Attempt, data map[string]string) (feedtest.Outcome, error) {
	if _, err := w.db.Exec(ctx, "BEGIN"); err != nil {
		return feedtest.Refused, err
	}
	savepoint := w.random.IntN(len(events) + 2) // before which event something is undone, if there is one
	for i := range events {
		e := &events[i]
		if i == savepoint {
			if err := w.undone(ctx, e.Feed, e.Key+"/undone"); err != nil {
				return feedtest.Refused, err
			}
		}
		var err error
		if w.enqueues {
			_, err = w.db.Exec(ctx, "SELECT rejoin_enqueue_text($1, NULL, $2)", e.Feed, data[e.Key])
		} else {
			var id int64
			err = w.db.QueryRow(ctx, "SELECT rejoin_append_text($1, NULL, $2)", e.Feed, data[e.Key]).Scan(&id)
			e.ID = feed.ID(id)
		}
		if err != nil {
			return feedtest.Refused, err
		}
	}
	if w.random.IntN(5) == 0 {
		_, err := w.db.Exec(ctx, "ROLLBACK")
		return feedtest.Refused, err
	}
	if _, err := w.db.Exec(ctx, "COMMIT"); err != nil {
		return feedtest.Unknown, err
	}
	return feedtest.Acknowledged, nil
}

// undone stores an event and rolls back to before it.
func (w *sqlWriter) undone(ctx context.Context, name, key string) error {
	w.s.recording.Attempted(feedtest.Attempt{Feed: name, Key: key, Sum: feedtest.SumOf("", key), Outcome: feedtest.Refused, Began: time.Now(), At: time.Now()})
	call := "rejoin_append_text"
	if w.enqueues {
		call = "rejoin_enqueue_text"
	}
	if _, err := w.db.Exec(ctx, "SAVEPOINT s"); err != nil {
		return err
	}
	if _, err := w.db.Exec(ctx, "SELECT "+call+"($1, NULL, $2)", name, key); err != nil {
		return err
	}
	_, err := w.db.Exec(ctx, "ROLLBACK TO SAVEPOINT s")
	return err
}

// awaitQueue waits until the nodes have numbered what was enqueued.
func (s *schedule) awaitQueue() {
	if s.world.postgres == nil {
		return
	}
	left := ""
	for deadline := time.Now().Add(tortureArrives * slower()); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) { // until a node has looked
		var err error
		left, err = s.world.sql("SELECT count(*) || ' events are in the queue, and ' || (SELECT count(*) FROM rejoin.refused) || ' were refused' FROM rejoin.queue")
		if err != nil {
			left = err.Error()
		}
		if left == "0 events are in the queue, and 0 were refused" {
			return
		}
	}
	s.found("when nothing was broken any more: %s", left)
}

// concludeQueue writes down under which ids the store holds what was enqueued.
func (s *schedule) concludeQueue() {
	if s.world.postgres != nil && len(s.queued) == 0 {
		s.found("no transaction that enqueued something has committed")
	}
	ids := make(map[string]map[feedtest.Sum]feed.ID)
	for _, q := range s.queued {
		if ids[q.Feed] == nil {
			ids[q.Feed] = make(map[feedtest.Sum]feed.ID)
			for id, sum := range s.recording.All(q.Feed) {
				ids[q.Feed][sum] = id
			}
		}
		id, held := ids[q.Feed][q.Sum]
		switch {
		case held:
			q.Outcome, q.ID = feedtest.Acknowledged, id
			s.recording.Attempted(q.Attempt)
		case q.must:
			s.recording.Found(feedtest.Finding{Kind: feedtest.LostAcknowledged, Feed: q.Feed, Detail: q.Key + " was enqueued and committed, and is not stored"})
		}
	}
}

// sql runs a statement in the world's database, which may be in no state to answer, and
// returns a text that it returns.
func (w *tortureWorld) sql(statement string) (text string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c, err := pgx.Connect(ctx, w.database)
	if err != nil {
		return "", err
	}
	defer c.Close(ctx)
	rows, err := c.Query(ctx, statement, pgx.QueryExecModeSimpleProtocol)
	if err != nil {
		return "", err
	}
	texts, err := pgx.CollectRows(rows, pgx.RowTo[string])
	return strings.Join(texts, ", "), err
}
