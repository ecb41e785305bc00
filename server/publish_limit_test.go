package server

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func publisherAt(l *publishLimits, address, subject string) *publisher {
	p := &publisher{l, []publisherKey{{address: netip.MustParseAddr(address)}}}
	if subject != "" {
		p.keys = append(p.keys, publisherKey{subject: [32]byte{subject[0]}})
	}
	return p
}

// TestPublishLimits: an address and a subject each have their events in a second, some
// more after a pause, and a debt after a large batch.
func TestPublishLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &publishLimits{perSecond: 10}
		take := func(p *publisher, n int, wait time.Duration) {
			t.Helper()
			err := p.take(n)
			tooFast, ok := errors.AsType[*rateError](err)
			switch {
			case wait == 0 && err != nil:
				t.Fatalf("%d: %v", n, err)
			case wait > 0 && (!ok || tooFast.wait.Round(time.Millisecond) != wait):
				t.Fatalf("%d: %v, want to wait %v", n, err, wait)
			}
		}
		ann := publisherAt(l, "192.0.2.1", "a")
		for range 50 {
			take(ann, 1, 0)
		}
		take(ann, 1, 100*time.Millisecond)
		take(ann, 20, 2*time.Second)
		take(publisherAt(l, "192.0.2.2", "a"), 1, 100*time.Millisecond) // the subject's
		take(publisherAt(l, "192.0.2.1", ""), 1, 100*time.Millisecond)  // the address's
		take(publisherAt(l, "192.0.2.2", "b"), 50, 0)                   // nothing was counted for a refusal
		time.Sleep(100 * time.Millisecond)
		take(ann, 1, 0)
		take(ann, 1, 100*time.Millisecond)
		time.Sleep(time.Minute)
		take(ann, 50, 0) // no more than a burst has been saved up
		take(ann, 1, 100*time.Millisecond)
		time.Sleep(5 * time.Second)
		take(ann, 1000, 0)
		take(ann, 1, 95*time.Second+100*time.Millisecond)
		time.Sleep(90 * time.Second)
		take(ann, 1000, 10*time.Second)
		time.Sleep(10 * time.Second)
		take(ann, 1000, 0)
		take((*publisher)(nil), 1000, 0)
	})
}

// TestPublishLimitsAreBounded: limits that are full again are forgotten, and there are
// never more than so many.
func TestPublishLimitsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &publishLimits{perSecond: 10}
		debtor := publisherAt(l, "192.0.2.1", "a")
		if err := debtor.take(500); err != nil {
			t.Fatal(err)
		}
		for i := range maxPublisherLimits / 2 {
			if err := publisherAt(l, fmt.Sprintf("10.0.%d.%d", i/256, i%256), "").take(1); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(l.limits); n != maxPublisherLimits/2+2 || l.lastUsed.Len() != n {
			t.Errorf("%d limits", n)
		}
		if debtor.take(1) == nil {
			t.Error("a debt is forgotten")
		}
		time.Sleep(10 * time.Second)
		for i := range maxPublisherLimits / 4 {
			_ = publisherAt(l, fmt.Sprintf("10.1.%d.%d", i/256, i%256), "").take(1)
		}
		if n := len(l.limits); n != maxPublisherLimits/4+2 || l.lastUsed.Len() != n {
			t.Errorf("%d limits, of which most are full again", n)
		}
		if debtor.take(1) == nil {
			t.Error("a debt is forgotten")
		}
		for i := range 3 * maxPublisherLimits {
			_ = publisherAt(l, fmt.Sprintf("11.%d.%d.%d", i/65536, i/256%256, i%256), "").take(1)
		}
		if n := len(l.limits); n > maxPublisherLimits || n < maxPublisherLimits-2 || l.lastUsed.Len() != n {
			t.Errorf("%d limits, want %d", n, maxPublisherLimits)
		}
	})
}
