package storagetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

func testReopen(t *testing.T, open Opener) {
	s := open(t)
	id := s.ID()
	if id == "" {
		t.Error("the store has no id")
	}
	chat := publish(t, s, numbered("chat", 0, 20))
	news := publish(t, s, numbered("news", 0, 3))
	for range 3 {
		if err := s.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		s = open(t)
		if got := s.ID(); got != id {
			t.Errorf("the store's id was %q and is %q", id, got)
		}
		expect(t, s, "chat", chat)
		expect(t, s, "news", news)
		chat = append(chat, publish(t, s, numbered("chat", len(chat), 2))...)
	}
	expect(t, s, "chat", chat)
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func testClosed(t *testing.T, open Opener) {
	s := open(t)
	publish(t, s, numbered("chat", 0, 1))
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if _, err := s.Append(t.Context(), []feed.Batch{{Drafts: numbered("chat", 1, 1)}}); err == nil {
		t.Error("append to a closed store: no error")
	} else if err := soundError(err); err != nil {
		t.Error(err)
	}
	if _, err := s.Read(t.Context(), "chat", 0, everything); err == nil {
		t.Error("read of a closed store: no error")
	}
	if _, err := s.Bounds(t.Context(), []string{"chat"}); err == nil {
		t.Error("bounds of a closed store: no error")
	}
	if _, err := s.Seek(t.Context(), "chat", time.Now()); err == nil {
		t.Error("seek in a closed store: no error")
	}
	s = start(t, open)
	if page := read(t, s, "chat", 0, everything); page.Last != 1 {
		t.Errorf("the feed ends at %d, want 1", page.Last)
	}
}

// Calls in progress during Close end with a true answer.
func testCloseUnderLoad(t *testing.T, open Opener) {
	s := open(t)
	told := newLedger()
	var calls sync.WaitGroup
	begun := make(chan struct{}, 8)
	for w := range cap(begun) {
		calls.Go(func() {
			name := fmt.Sprintf("chat:%d", w%2)
			for n := 0; ; n++ {
				if n == 3 {
					begun <- struct{}{}
				}
				results, err := s.Append(t.Context(), []feed.Batch{{Drafts: numbered(name, 0, 3)}})
				if err != nil {
					if err := soundError(err); err != nil {
						t.Error(err)
					}
					return
				}
				if err := told.enter(results[0].Events); err != nil {
					t.Error(err)
				}
				if _, err := s.Read(t.Context(), name, 0, feed.Limit{Events: 10, Bytes: 1000}); err != nil {
					return
				}
			}
		})
	}
	for range cap(begun) {
		<-begun
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	calls.Wait()
	s = start(t, open)
	told.checkAll(t, s, "chat:0")
	told.checkAll(t, s, "chat:1")
}
