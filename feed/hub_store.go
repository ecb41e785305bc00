package feed

import (
	"context"
	"errors"
	"fmt"
)

// retentionStore returns the hub's store if it can list and trim its feeds.
func (h *Hub) retentionStore() (RetentionStore, error) {
	k, ok := h.store.Store.(RetentionStore)
	if !ok {
		return nil, fmt.Errorf("store: %w", errors.ErrUnsupported)
	}
	return timedRetentionStore{k, h.store.times}, nil
}

// List returns feeds by name: see [RetentionStore]. Its error wraps
// [errors.ErrUnsupported] if the store is no RetentionStore.
func (h *Hub) List(ctx context.Context, prefix, after string, limit int) ([]Info, error) {
	k, err := h.retentionStore()
	if err != nil {
		return nil, err
	}
	ctx, leave, err := h.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	l, err := k.List(ctx, prefix, after, limit)
	return l.Feeds, err
}

// Info returns what the store knows of the feed; ok is false for one that was
// never written to or closed.
func (h *Hub) Info(ctx context.Context, feed string) (info Info, ok bool, err error) {
	if err := CheckName(feed); err != nil {
		return Info{}, false, err
	}
	// No name that begins with this one sorts before it.
	feeds, err := h.List(ctx, feed, "", 1)
	if err != nil || len(feeds) == 0 || feeds[0].Feed != feed {
		return Info{}, false, err
	}
	return feeds[0], true, nil
}

// Trim removes the feed's events below the id before, those that exist. Once it
// has returned without an error, this node's subscribers do not get them any
// more; the other nodes learn of it at once or at their next verification. After an
// error, the events may be gone or not; the same call can be made again.
func (h *Hub) Trim(ctx context.Context, feed string, before ID) error {
	k, err := h.retentionStore()
	if err != nil {
		return err
	}
	if err := CheckName(feed); err != nil {
		return err
	}
	ctx, leave, err := h.enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	if err := k.Trim(ctx, feed, before); err != nil {
		return err
	}
	h.signals.send(note{Kind: signalChanged, Feed: feed})
	h.forget(feed)
	if l := h.lookup(feed); l != nil {
		if _, err := h.readBounds(ctx, l); err != nil {
			h.recheckAll()
			return fmt.Errorf("see what the trim has left: %w", err)
		}
	}
	return nil
}

// forget makes later callers ask the store again: the answers that the hub keeps may be
// older than a trim. A caller that has its answer already has a log, which knows better.
func (h *Hub) forget(feed string) {
	h.pages.forget(func(key pageKey) bool { return key.feed == feed })
	h.bounds.forget(func(name string) bool { return name == feed })
}

// StoreID returns the ID of the hub's store: see [Store].
func (h *Hub) StoreID() string { return h.store.ID() }

// Read returns a page of the feed's history, as [Store] Read does.
func (h *Hub) Read(ctx context.Context, feed string, after ID, limit Limit) (Page, error) {
	if err := CheckName(feed); err != nil {
		return Page{}, err
	}
	ctx, leave, err := h.enter(ctx)
	if err != nil {
		return Page{}, err
	}
	defer leave()
	if Reserved(feed) {
		return Page{Bounds: Bounds{First: 1}}, nil
	}
	p, err := h.store.Read(ctx, feed, after, limit)
	if err == nil {
		err = checkPage(feed, after, p)
	}
	h.noteRead(ctx, err, feed, after)
	return p, err
}
