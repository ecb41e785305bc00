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
	comparer feed.ComparingReceiver // receiver, or nil if it is none
}

// Tail passes the events that other nodes tell to r until ctx ends. It has its own
// client, because a blocked read ends early only if its connection is closed.
func (b *Bus) Tail(ctx context.Context, r feed.Receiver) error {
	t := &tail{bus: b, client: b.address.client(block + grace), receiver: r}
	t.comparer, _ = r.(feed.ComparingReceiver)
	hangUp := sync.OnceFunc(func() { t.client.Close() })
	defer hangUp()
	defer context.AfterFunc(ctx, hangUp)()
	var work sync.WaitGroup
	for _, l := range t.shardTails() {
		work.Go(func() { l.follow(ctx) })
	}
	work.Wait()
	return nil
}

// shardTail is one goroutine of a tail. It reads one shard, since on Cluster each may
// be on another server.
type shardTail struct {
	*tail
	shard     int
	keys      *keyspace // the keys that it reads
	wake      string    // the key of its wake stream
	at        position  // of the last entry read
	anchor    position  // an entry that was read; a stream that begins after it may have lost unread ones
	broken    bool      // the key holds no stream, and is not read until it does
	checkedAt time.Time
	woken     time.Time // the time of the last wake-up
	grown     map[string]*feedNews
	order     []*feedNews // the values of grown
}

func (t *tail) shardTails() []*shardTail {
	shardTails := make([]*shardTail, len(t.bus.keys().wakes))
	for i := range shardTails {
		shardTails[i] = &shardTail{tail: t, shard: i, grown: make(map[string]*feedNews)}
	}
	return shardTails
}

const steady = time.Second // a connection that lasted longer resets the backoff

// follow listens until ctx ends, and reconnects whenever the connection is lost.
func (l *shardTail) follow(ctx context.Context) {
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

// errMoved means that the store's id has changed, and with it the keys to read.
var errMoved = errors.New("the store has other keys now")

// listen reads from the current end of the wake stream. It returns when it fails, or
// when the store has other keys.
func (l *shardTail) listen(ctx context.Context) error {
	l.keys = l.bus.keys()
	l.wake = l.keys.wakes[l.shard]
	if err := l.checkWakeStream(ctx, true); err != nil {
		return err
	}
	l.bus.health.tails(l, nil)
	for {
		if l.moved() {
			return errMoved
		}
		full, err := l.await(ctx)
		if isWrongType(err) {
			err = l.checkWakeStream(ctx, false)
		}
		if err != nil {
			return err
		}
		if len(l.order) > 0 {
			if err := l.fetch(ctx); err != nil {
				return err
			}
		}
		if full || time.Since(l.checkedAt) >= checkEvery {
			if err := l.checkWakeStream(ctx, false); err != nil {
				return err
			}
		}
	}
}

// moved reports whether the store has other keys than those that l reads.
func (l *shardTail) moved() bool { return l.bus.keys() != l.keys }

// The calls of the receiver, one at a time.

func (t *tail) cursor(name string) (feed.ID, bool) {
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

func (t *tail) grew(name string, last feed.ID) {
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
