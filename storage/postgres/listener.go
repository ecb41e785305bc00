package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/rejoin/rejoin/feed"
)

const (
	// After this long without a notification, a listener sends itself one; after as
	// long again, its connection counts as dead. The network's own timeouts do not see
	// a pooler or a server that stands still.
	probeAfter = 4 * time.Second

	// The pause before the next connection: after one that worked, and at most.
	firstReconnect, longestReconnect = 50 * time.Millisecond, time.Second

	// A connection that lasted longer ends an outage, so that one which is lost again
	// and again fills no log.
	steady = 3 * time.Second
)

// errSilent means that a notification of this node does not come back to it.
var errSilent = errors.New("this node's own notifications do not come back to it")

// listener is the connection on which the database notifies this node, outside all
// pools. It is open while there is somebody to pass notifications to, and reconnects.
type listener struct {
	node   string // names this listener in payloads
	store  *Store
	logger *slog.Logger
	config *pgx.ConnConfig // nil for the store's

	starting sync.Mutex // held while the first comes, or the last leaves
	stop     func()     // ends run, and waits for it

	mu     sync.Mutex
	ears   map[ear]struct{}
	err    error // why it does not listen
	outage feed.Outage
	other  bool // another node has been seen
}

// ear takes what a listener hears. Its methods do not block.
type ear interface {
	hear(kind string, words []string)
	// missed reports that notifications may have been lost.
	missed()
}

var errNotListening = errors.New("not listening yet")

func newListener(s *Store, node string, logger *slog.Logger) *listener {
	return &listener{node: node, store: s, logger: logger, ears: make(map[ear]struct{}), err: errNotListening}
}

// join passes notifications to e until leave is called.
func (l *listener) join(e ear) (leave func()) {
	l.starting.Lock()
	defer l.starting.Unlock()
	l.mu.Lock()
	l.ears[e] = struct{}{}
	first := len(l.ears) == 1
	l.mu.Unlock()
	if first {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			l.run(ctx)
		}()
		l.stop = func() {
			cancel()
			<-ended
		}
	}
	return func() { l.leave(e) }
}

func (l *listener) leave(e ear) {
	l.starting.Lock()
	defer l.starting.Unlock()
	l.mu.Lock()
	delete(l.ears, e)
	last := len(l.ears) == 0
	l.mu.Unlock()
	if last {
		l.stop()
	}
}

// run listens until ctx ends, and reconnects whenever the connection is lost.
func (l *listener) run(ctx context.Context) {
	for pause := firstReconnect; ; pause = min(2*pause, longestReconnect) {
		listened, err := l.listen(ctx)
		if ctx.Err() != nil {
			return
		}
		l.note(err, false)
		if listened {
			pause = firstReconnect
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		case <-l.store.done:
			return
		}
	}
}

// listen connects, and passes on notifications until the connection is lost. listened
// reports whether it ever worked.
func (l *listener) listen(ctx context.Context) (listened bool, err error) {
	began := time.Now()
	c, err := l.connect(ctx)
	if err != nil {
		return false, fmt.Errorf("connect: %w", err)
	}
	defer func() {
		_ = c.PgConn().Conn().Close() // a goodbye would wait for a dead server
		disconnect(c)
	}()
	if err := l.exec(ctx, c, query("listen")); err != nil {
		return false, fmt.Errorf("listen: %w", err)
	}
	// Whatever was committed before LISTEN was not announced to this connection.
	l.each(ear.missed)
	for probed := true; ; {
		if probed {
			if err := l.exec(ctx, c, query("notify"), channel, kindHere+" "+l.node); err != nil {
				return listened, fmt.Errorf("notify: %w", err)
			}
		}
		short, cancel := context.WithTimeout(ctx, probeAfter)
		n, err := c.WaitForNotification(short)
		late := short.Err() != nil
		cancel()
		switch {
		case err == nil:
			l.note(nil, time.Since(began) > steady)
			listened, probed = true, false
			l.pass(n.Payload)
		case ctx.Err() != nil || c.IsClosed() || !late:
			return listened, err
		case probed:
			return listened, errSilent
		default:
			probed = true
		}
	}
}

func (l *listener) connect(ctx context.Context) (*pgx.Conn, error) {
	config := l.config
	if config == nil {
		config = l.store.config
	}
	config = config.Copy()
	config.RuntimeParams["application_name"] += " listen"
	c, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	if l.config == nil {
		// The server may have restarted, or be another one.
		if err := l.store.identify(ctx, c); err != nil {
			disconnect(c)
			return nil, err
		}
	}
	return c, nil
}

func (l *listener) exec(ctx context.Context, c *pgx.Conn, sql string, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, transit)
	defer cancel()
	_, err := c.Exec(ctx, sql, args...)
	return err
}

// pass passes on one notification.
func (l *listener) pass(payload string) {
	kind, rest, _ := strings.Cut(payload, " ")
	words := strings.Fields(rest)
	switch kind {
	case kindGrew, kindLook, kindSignal:
		if len(words) == 0 || words[0] == l.node {
			return // this node's hub has what its publisher stored
		}
	case kindHere:
		if len(words) > 0 && words[0] != l.node {
			l.noteOther()
		}
		return
	}
	l.each(func(e ear) { e.hear(kind, words) })
}

func (l *listener) each(f func(ear)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for e := range l.ears {
		f(e)
	}
}

// note notes whether the listener works, and whether it has for a while.
func (l *listener) note(err error, lasts bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err = err; err == nil && !lasts {
		return
	}
	switch l.outage.Note(err) {
	case feed.OutageBegan:
		l.logger.Warn("listening to Postgres failed; what other nodes and applications publish arrives late", "error", err)
	case feed.OutageChanged:
		l.logger.Warn("listening to Postgres still fails, for another reason", "error", err)
	case feed.OutageEnded:
		l.logger.Info("listening to Postgres works again", "after", l.outage.Lasted())
	}
}

// noteOther logs once that a node which counts on being alone is not.
func (l *listener) noteOther() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.store.o.Alone && !l.other {
		l.other = true
		l.logger.Warn("another node uses this store, and this node's bus is memory: ephemeral events and counts stay on their nodes, and events arrive late; set bus.url to postgres or to a Redis")
	}
}

// state returns why the listener does not work, nil if it does.
func (l *listener) state() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}
