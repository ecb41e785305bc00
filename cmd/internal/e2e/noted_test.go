package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// noted is what a stream brings, and how it ends, as text.
type noted struct {
	source *eventSource
	log    lockedBuffer
}

func (f *noted) take(b rawBlock) {
	switch b.kind {
	case "":
		fmt.Fprintf(&f.log, "%s, ", b.id)
	case "typing":
		fmt.Fprintf(&f.log, "%s%s, ", b.data, b.id)
	case "feed.open":
		fmt.Fprint(&f.log, "feed.open , ")
	default:
		fmt.Fprintf(&f.log, "%s %s, ", b.kind, b.data)
	}
}

func (f *noted) end(err error) { fmt.Fprintf(&f.log, "the end %v, ", err) }

func (f *noted) saw() string { return f.log.String() }

func (f *noted) await(t *testing.T, what string) {
	t.Helper()
	f.until(t, what, func() bool { return strings.Contains(f.saw(), what) })
}

// until waits until something is so.
func (f *noted) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("saw no %q, but %s; %v", what, f.saw(), f.source)
		}
		time.Sleep(5 * time.Millisecond) // until it has come
	}
}

// cursor returns the last id that the stream has shown.
func (f *noted) cursor() string {
	f.source.mu.Lock()
	defer f.source.mu.Unlock()
	return f.source.lastID
}
