package memory

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/rejoin/rejoin/feed"
)

// A receiver that blocks costs the bus one full inbox, and delays no other node.
// Signals that do not fit are lost. Signals that are sent once there is room arrive.
func TestSignalsOverflow(t *testing.T) {
	tests := []struct {
		name string
		size int // of each payload
		fit  int
	}{
		{"in number", 1, signalsWaiting},
		{"in bytes", 1 << 20, signalBytes >> 20},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := NewBus()
				hold := make(chan struct{})
				got := 0
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error)
				go func() {
					ended <- b.Signals(ctx, func([]byte) { got++; <-hold })
				}()
				synctest.Wait()
				send := func(n int) {
					for range n {
						if err := b.Signal(t.Context(), make([]byte, test.size)); err != nil {
							t.Fatal(err)
						}
					}
					synctest.Wait()
				}
				send(1) // holds the receiver
				send(test.fit + 10)
				close(hold)
				synctest.Wait()
				if want := 1 + test.fit; got != want {
					t.Errorf("received %d signals, want %d", got, want)
				}
				got = 0
				send(test.fit)
				if got != test.fit {
					t.Errorf("received %d signals once there was room, want %d", got, test.fit)
				}
				cancel()
				if err := <-ended; err != nil || len(b.signals) != 0 {
					t.Errorf("signals: %v, and there are %d inboxes", err, len(b.signals))
				}
			})
		})
	}
}

// The caller may reuse its slice, and receivers do not share one.
func TestSignalsAreCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBus()
		got := make([]string, 2)
		for i := range got {
			go func() {
				_ = b.Signals(t.Context(), func(payload []byte) {
					got[i] = string(payload)
					clear(payload)
				})
			}()
		}
		synctest.Wait()
		payload := []byte("sent")
		if err := b.Signal(t.Context(), payload); err != nil {
			t.Fatal(err)
		}
		copy(payload, "used")
		synctest.Wait()
		for _, g := range got {
			if g != "sent" {
				t.Errorf("received %q", g)
			}
		}
	})
}

func TestCloseSignals(t *testing.T) {
	b := NewBus()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := b.Signal(t.Context(), nil); !errors.Is(err, feed.ErrStopped) {
		t.Errorf("signal: got %v, want %v", err, feed.ErrStopped)
	}
	if err := b.Signals(t.Context(), func([]byte) {}); !errors.Is(err, feed.ErrStopped) {
		t.Errorf("signals: got %v, want %v", err, feed.ErrStopped)
	}
}
