package redis

import (
	"context"
	"errors"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/rejoin/rejoin/feed"
)

// tail is one call of Tail.
type tail struct {
	bus    *Bus
	client goredis.UniversalClient

	mu       sync.Mutex // one call of the receiver at a time
	receiver feed.Receiver
	comparer feed.ComparingReceiver // the same, or nil
}

// Tail hands what other nodes tell to r until ctx ends. It has a client of its
// own, because a blocked read ends early only if its connection is closed.
func (b *Bus) Tail(ctx context.Context, r feed.Receiver) error {
	t := &tail{bus: b, client: b.address.client(block + grace), receiver: r}
	t.comparer, _ = r.(feed.ComparingReceiver)
	hangUp := sync.OnceFunc(func() { t.client.Close() })
	defer hangUp()
	defer context.AfterFunc(ctx, hangUp)()
	var work sync.WaitGroup
	for _, l := range t.lanes() {
		work.Go(func() { l.follow(ctx) })
	}
	work.Wait()
	return nil
}

// lane is a goroutine's part of a tail, and how far it has read: one shard,
// since on Cluster nobody but the server knows where each of them is.
type lane struct {
	*tail
	shard    int
	keys     *keyspace // that it reads
	wake     string    // the key of its wake stream
	at       position  // of the last entry read
	anchor   position  // read once; a stream that begins behind it may have lost what was not
	broken   bool      // no stream: not read until it is one
	surveyed time.Time
	woken    time.Time // when the last wake-up was
	grown    map[string]*news
	order    []*news // what is in grown
}

func (t *tail) lanes() []*lane {
	lanes := make([]*lane, len(t.bus.keys().wakes))
	for i := range lanes {
		lanes[i] = &lane{tail: t, shard: i, grown: make(map[string]*news)}
	}
	return lanes
}

const steady = time.Second // a connection that has held so long was a good one

// follow listens until ctx ends, however often the connection is lost.
func (l *lane) follow(ctx context.Context) {
	health := &l.bus.health
	health.tails(l, errStarting)
	defer health.leave(l)
	wait := backoff{}
	for ctx.Err() == nil {
		began := time.Now()
		err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == errMoved {
			continue
		}
		health.tails(l, err)
		l.bus.counts.reconnects.Add(1)
		relearn(ctx, l.client)
		if time.Since(began) > steady+block+grace {
			wait = backoff{}
		}
		pause(ctx, wait.next())
	}
}

// errMoved says that the store has other keys than those that are read.
var errMoved = errors.New("the store has other keys now")

// listen reads from where the wake stream ends now. It returns when it can't
// any more, or when the store has other keys.
func (l *lane) listen(ctx context.Context) error {
	l.keys = l.bus.keys()
	l.wake = l.keys.wakes[l.shard]
	if err := l.survey(ctx, true); err != nil {
		return err
	}
	l.bus.health.tails(l, nil)
	for {
		if l.moved() {
			return errMoved
		}
		full, err := l.await(ctx)
		if isWrongType(err) {
			err = l.survey(ctx, false)
		}
		if err != nil {
			return err
		}
		if len(l.order) > 0 {
			if err := l.fetch(ctx); err != nil {
				return err
			}
		}
		if full || time.Since(l.surveyed) >= surveyEvery {
			if err := l.survey(ctx, false); err != nil {
				return err
			}
		}
	}
}

// moved says whether the store has other keys than those that the lane reads.
func (l *lane) moved() bool { return l.bus.keys() != l.keys }

// The calls of the receiver.

func (t *tail) cursor(name string) (feed.Cursor, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.receiver.Cursor(name)
}

func (t *tail) receive(events []feed.Event) {
	if len(events) == 0 {
		return
	}
	t.bus.counts.events.Add(uint64(len(events)))
	t.mu.Lock()
	defer t.mu.Unlock()
	t.receiver.Receive(events)
}

func (t *tail) seen(events []feed.Event) {
	if len(events) == 0 || t.comparer == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.comparer.Seen(events)
}

func (t *tail) grew(name string, last uint64) {
	t.bus.counts.grew.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.receiver.Grew(name, last)
}

func (t *tail) missed() {
	t.bus.counts.missed.Add(1)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.receiver.Missed()
}
