package postgres

import (
	"context"
	"sync"

	"github.com/rejoin/rejoin/feed"
)

// gates let one append at a time at each feed, in the order of arrival. Each
// append takes the gates of all its feeds, in the order of their names.
type gates struct {
	mu    sync.Mutex
	feeds map[string]*gate
}

type gate struct {
	users int           // those inside and those who wait
	turn  chan struct{} // holds an entry while somebody is inside
}

func newGates() *gates { return &gates{feeds: make(map[string]*gate)} }

// enter waits until nobody else is at the feeds, whose names are sorted. It ends
// with an error when ctx or done does.
func (g *gates) enter(ctx context.Context, done <-chan struct{}, names []string) (leave func(), err error) {
	for i, name := range names {
		turn := g.queue(name)
		select {
		case turn <- struct{}{}: // without a look at the clock, if nobody is there
			continue
		default:
		}
		select {
		case turn <- struct{}{}:
			continue
		case <-ctx.Done():
			err = unavailable(context.Cause(ctx))
		case <-done:
			err = feed.ErrStopped
		}
		g.leave(names[i:i+1], false)
		g.leave(names[:i], true)
		return nil, err
	}
	return func() { g.leave(names, true) }, nil
}

func (g *gates) queue(name string) chan<- struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	one := g.feeds[name]
	if one == nil {
		one = &gate{turn: make(chan struct{}, 1)}
		g.feeds[name] = one
	}
	one.users++
	return one.turn
}

func (g *gates) leave(names []string, inside bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range names {
		one := g.feeds[name]
		if inside {
			<-one.turn
		}
		if one.users--; one.users == 0 {
			delete(g.feeds, name)
		}
	}
}
