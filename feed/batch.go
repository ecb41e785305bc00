package feed

import (
	"crypto/sha256"
	"fmt"
	"io"
)

// Publication is what a caller asks a [Publisher] to store: all of it or nothing.
type Publication struct {
	// Feed is the one feed that the publication is about; empty if its drafts are
	// for several, which leaves no room for IfLast and Close.
	Feed   string
	Drafts []Draft // may be empty if Close is set

	// Key, if not empty, is an idempotency key: the same publication with the same
	// key is stored once, and the same key with another is refused with
	// ErrKeyReused. It has at most 255 visible ASCII characters. Each feed has its
	// own keys, and publications without a Feed have theirs.
	Key string
	// IfLast, if not nil, is the last id that the feed has to have. Otherwise the
	// publication is refused with a [*LastError].
	IfLast *ID
	// Close closes the feed after the drafts. No event can follow. Closing a closed
	// feed again, without drafts, changes nothing and is no error.
	Close bool

	// Trace, if not empty, is what a [Tracer] gets with the events, on this node and on
	// those that the bus brings it to. It is not stored.
	Trace string
}

// prepare adds a sound publication to the call.
func (p *Publisher) prepare(call *publishCall, pub Publication) error {
	if err := pub.check(); err != nil {
		return err
	}
	batch := Batch{Feed: pub.Feed, Drafts: make([]Draft, len(pub.Drafts)), IfLast: pub.IfLast, Close: pub.Close, Follows: len(call.batches) > 0, Trace: pub.Trace}
	size := publishCost
	for i, d := range pub.Drafts {
		clean, err := d.clean(int(p.limit.Load()))
		if err == nil && pub.Feed != "" && d.Feed != pub.Feed {
			err = fmt.Errorf("%w: it is for the feed %s, the batch for %s", ErrInvalid, d.Feed, pub.Feed)
		}
		if err != nil && len(pub.Drafts) > 1 {
			err = &DraftError{i, err}
		}
		if err != nil {
			return err
		}
		batch.Drafts[i] = clean
		size += sizeOf(len(clean.Data)) + draftCost
	}
	if call.feed = pub.Feed; pub.Feed == "" {
		call.feed = commonFeed(pub.Drafts)
	}
	if pub.Key != "" {
		batch.Key = &Key{Name: pub.Key, Fingerprint: batch.Fingerprint(), Window: p.keyWindow}
	}
	call.batches = append(call.batches, batch)
	call.size += size
	return nil
}

// check checks all but the drafts.
func (pub *Publication) check() error {
	switch {
	case len(pub.Drafts) == 0 && !pub.Close:
		return fmt.Errorf("%w: nothing to publish", ErrInvalid)
	case pub.Feed == "" && (pub.Close || pub.IfLast != nil):
		return fmt.Errorf("%w: only one feed can be closed, or have a last event", ErrInvalid)
	}
	if pub.Feed != "" {
		if err := CheckWritable(pub.Feed); err != nil {
			return err
		}
	}
	if pub.Key != "" {
		return CheckKey(pub.Key)
	}
	return nil
}

// commonFeed returns the feed that all drafts are for, empty if there is none.
func commonFeed(drafts []Draft) string {
	for _, d := range drafts[1:] {
		if d.Feed != drafts[0].Feed {
			return ""
		}
	}
	return drafts[0].Feed
}

// Fingerprint returns the [Key] Fingerprint of the batch's drafts and Close.
func (b *Batch) Fingerprint() [sha256.Size]byte {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%t", b.Close) // a hash takes everything
	for _, d := range b.Drafts {
		_, _ = fmt.Fprintf(h, " %q %q %t %d:", d.Feed, d.Type, d.JSON, len(d.Data))
		_, _ = io.WriteString(h, d.Data)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
