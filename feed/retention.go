package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"
)

// Rule limits how much of the feeds that match a pattern is kept. Zero means no
// limit.
type Rule struct {
	Feeds  string // a name, or the beginning of names and *
	Age    time.Duration
	Events uint64 // the newest that stay
}

// MatchPattern reports whether the feed matches the pattern.
func MatchPattern(pattern, feed string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(feed, prefix)
	}
	return pattern == feed
}

// CheckPattern returns an error unless pattern is a feed name, or the beginning of one
// and *, which stands for any rest. The error wraps ErrInvalid.
func CheckPattern(pattern string) error {
	name, any := strings.CutSuffix(pattern, "*")
	if any && name == "" {
		return nil
	}
	if err := CheckName(name); err != nil {
		return fmt.Errorf("a pattern is a feed name, or the beginning of one and *: %w", err)
	}
	return nil
}

// RetentionOptions tunes a retention. The zero value keeps everything.
type RetentionOptions struct {
	// Rules are tried in order; the first that matches a feed counts.
	Rules []Rule
	// KeyWindow is the publishers'; 0 means 24 hours.
	KeyWindow time.Duration
	// Every is the time between two rounds; 0 means 10 seconds.
	Every time.Duration
	// Logger gets what operators should see; nil means slog.Default.
	Logger *slog.Logger
}

const (
	retentionPage = 500 // feeds in one List

	// How many rows one step of sweeping removes, and the time between two steps, in
	// which appends go on.
	sweepRows  = 500
	sweepPause = 20 * time.Millisecond
)

// Retention trims feeds by age and by number of events, and frees the space of trimmed
// events, on one node at a time and in small steps. The clock that times events also
// measures their ages. An event whose time is ahead of that clock is kept until the
// clock has caught up with it.
type Retention struct {
	hub    *Hub
	store  RetentionStore
	o      RetentionOptions // but for the rules
	rules  atomic.Pointer[[]Rule]
	outage Outage
	cancel context.CancelFunc
	done   chan struct{}
}

// NewRetention returns a retention for the store of hub, and starts it. Close it
// before the hub. Its error wraps [errors.ErrUnsupported] if the store is no
// RetentionStore, and ErrInvalid for a bad rule.
func NewRetention(hub *Hub, o RetentionOptions) (*Retention, error) {
	store, err := hub.retentionStore()
	if err != nil {
		return nil, err
	}
	o.KeyWindow = cmp.Or(o.KeyWindow, 24*time.Hour)
	o.Every = cmp.Or(o.Every, 10*time.Second)
	o.Logger = located(cmp.Or(o.Logger, slog.Default()), "store", hub.store.Store)
	ctx, cancel := context.WithCancel(context.Background())
	r := &Retention{hub: hub, store: store, o: o, cancel: cancel, done: make(chan struct{})}
	if err := r.SetRules(o.Rules); err != nil {
		cancel()
		return nil, err
	}
	go r.loop(ctx)
	return r, nil
}

// SetRules replaces the rules, from the next round on. With a bad rule, it changes
// nothing and returns an error that wraps ErrInvalid.
func (r *Retention) SetRules(rules []Rule) error {
	for _, rule := range rules {
		if err := CheckPattern(rule.Feeds); err != nil {
			return err
		}
		if rule.Age < 0 {
			return fmt.Errorf("%w: the age %v of %s is negative", ErrInvalid, rule.Age, rule.Feeds)
		}
	}
	r.rules.Store(&rules)
	return nil
}

// Close returns when everything that the retention started has ended.
func (r *Retention) Close() {
	r.cancel()
	<-r.done
}

func (r *Retention) loop(ctx context.Context) {
	defer close(r.done)
	ticker := time.NewTicker(r.o.Every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		ran, err := r.store.RunExclusive(ctx, r.round)
		if ctx.Err() == nil {
			r.hub.counts.retention(ran, err)
			r.outage.log(r.o.Logger, err, "retention")
		}
	}
}

// round trims by the rules, and sweeps. It logs what it has removed.
func (r *Retention) round(ctx context.Context) error {
	began, counts := time.Now(), &r.hub.counts // which only retention changes
	trims, events := counts.trims.Load(), counts.trimmedEvents.Load()
	err := r.trimAll(ctx)
	if trims = counts.trims.Load() - trims; trims > 0 {
		r.o.Logger.Info("retention has trimmed feeds", "feeds", trims, "events", counts.trimmedEvents.Load()-events,
			"took", time.Since(began).Round(time.Millisecond))
	}
	return errors.Join(err, r.sweep(ctx))
}

// sweep frees the space of trimmed events. If there is much, it leaves the rest to later
// rounds, which trim in between.
func (r *Retention) sweep(ctx context.Context) error {
	for began := time.Now(); time.Since(began) < r.o.Every; {
		more, err := r.store.Sweep(ctx, sweepRows, r.o.KeyWindow)
		if err != nil || !more {
			return err
		}
		select {
		case <-time.After(sweepPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// trimAll trims every feed. If one cannot be trimmed, it goes on with the others. If the
// store is away, it stops.
func (r *Retention) trimAll(ctx context.Context) (first error) {
	rules := *r.rules.Load()
	if len(rules) == 0 {
		return nil
	}
	for after := ""; ; {
		l, err := r.store.List(ctx, "", after, retentionPage)
		if err != nil {
			return fmt.Errorf("list feeds: %w", err)
		}
		for _, info := range l.Feeds {
			after = info.Feed
			err := r.trim(ctx, rules, info, l.Now)
			if err == nil {
				continue
			}
			first = cmp.Or(first, fmt.Errorf("trim %s: %w", info.Feed, err))
			if errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
				return first
			}
		}
		if len(l.Feeds) < retentionPage {
			return first
		}
	}
}

// trim trims one feed by the first rule that matches it.
func (r *Retention) trim(ctx context.Context, rules []Rule, info Info, now time.Time) error {
	for _, rule := range rules {
		if !MatchPattern(rule.Feeds, info.Feed) {
			continue
		}
		before, err := r.before(ctx, info, rule, now)
		if err != nil || before <= info.First {
			return err
		}
		if err := r.hub.Trim(ctx, info.Feed, before); err != nil {
			return err
		}
		r.hub.counts.trims.Add(1)
		r.hub.counts.trimmedEvents.Add(uint64(before - info.First))
		return nil
	}
	return nil
}

// before returns the id below which the rule trims the feed.
func (r *Retention) before(ctx context.Context, info Info, rule Rule, now time.Time) (ID, error) {
	if info.First > info.Last {
		return 0, nil
	}
	before := ID(0)
	if rule.Events > 0 && uint64(info.Last) > rule.Events {
		before = info.Last - ID(rule.Events) + 1
	}
	if rule.Age == 0 {
		return before, nil
	}
	oldest := now.Add(-rule.Age)
	if info.Updated.Before(oldest) {
		return info.Last + 1, nil
	}
	c, err := r.hub.store.Seek(ctx, info.Feed, oldest)
	if err != nil {
		return 0, err
	}
	return max(before, c+1), nil
}
