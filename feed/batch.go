package feed

import (
	"crypto/sha256"
	"fmt"
	"io"
)

// prepare makes a call of a batch that is sound.
func (p *Publisher) prepare(b Batch) (*publishCall, error) {
	if err := p.check(b); err != nil {
		return nil, err
	}
	call := &publishCall{feed: b.Feed, batch: b, size: publishCost, done: make(chan struct{})}
	call.batch.Drafts = make([]Draft, len(b.Drafts))
	for i, d := range b.Drafts {
		clean, err := d.clean(p.limit)
		if err == nil && b.Feed != "" && d.Feed != b.Feed {
			err = fmt.Errorf("%w: it is for the feed %s, the batch for %s", ErrInvalid, d.Feed, b.Feed)
		}
		if err != nil && len(b.Drafts) > 1 {
			err = &DraftError{i, err}
		}
		if err != nil {
			return nil, err
		}
		call.batch.Drafts[i] = clean
		call.size += sizeOf(len(clean.Data)) + draftCost
	}
	if b.Feed == "" {
		call.feed = commonFeed(b.Drafts)
	}
	if b.Key != nil {
		call.batch.Key = &Key{Name: b.Key.Name, Fingerprint: fingerprint(call.batch), Window: p.keyWindow}
	}
	return call, nil
}

// check looks at what is asked for beside the drafts.
func (p *Publisher) check(b Batch) error {
	switch {
	case len(b.Drafts) == 0 && !b.Close:
		return fmt.Errorf("%w: nothing to publish", ErrInvalid)
	case b.Feed == "" && (b.Close || b.IfLast != nil):
		return fmt.Errorf("%w: only one feed can be closed, or have a last event", ErrInvalid)
	}
	if b.Feed != "" {
		if err := CheckName(b.Feed); err != nil {
			return err
		}
	}
	if b.Key != nil {
		return CheckKey(b.Key.Name)
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

// fingerprint is what tells a batch from another that comes with the same key.
func fingerprint(b Batch) [sha256.Size]byte {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%t", b.Close) // a hash takes everything
	for _, d := range b.Drafts {
		_, _ = fmt.Fprintf(h, " %q %q %t %d:", d.Feed, d.Type, d.JSON, len(d.Data))
		_, _ = io.WriteString(h, d.Data)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
