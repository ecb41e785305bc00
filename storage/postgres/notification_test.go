package postgres

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

func TestGrowthPayload(t *testing.T) {
	t.Parallel()
	want := growth{"a": 1, "chat:42": feed.MaxID, strings.Repeat("x", 255): 7}
	words := strings.Fields(want.payload("me"))
	if words[0] != kindGrew || words[1] != "me" {
		t.Errorf("the payload begins with %q", words[:2])
	}
	if got := parseGrowth(words[2:]); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// As long as it may be, and one byte longer.
	for _, test := range []struct {
		bytes int
		looks bool
	}{{maxPayload, false}, {maxPayload + 1, true}} {
		g, size := growth{}, len("grew me")
		for i := 0; size < test.bytes; i++ {
			name := fmt.Sprintf("%03d", i)
			if left := test.bytes - size; left < 2*len(" 000 1") {
				name = strings.Repeat("y", left-len("  1"))
			}
			g[name] = 1
			size += len("  1") + len(name)
		}
		payload := g.payload("me")
		if looks := payload == "look me"; looks != test.looks || !looks && len(payload) != test.bytes {
			t.Errorf("%d bytes became %d: %.20q", test.bytes, len(payload), payload)
		}
	}
	// Additions of a later version do not spoil the known part.
	if got := parseGrowth([]string{"a", "1", "b", "x", "c", "3"}); !maps.Equal(got, growth{"a": 1}) {
		t.Errorf("got %v of a payload that cannot be read to its end", got)
	}
}

// TestSignalPieces takes signals apart and puts them together, whole and with pieces
// lost, repeated and exchanged: a signal arrives as it was sent, or not at all.
func TestSignalPieces(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	sent := make(map[string]bool)
	var payloads []string
	var a assembly
	for n := range 200 {
		signal := make([]byte, rng.IntN(4*pieceBytes))
		for i := range signal {
			signal[i] = byte(rng.Uint32())
		}
		sent[string(signal)] = true
		pieces := signalPieces("node", uint64(n), signal)
		var got []byte
		arrived := 0
		for i, p := range pieces {
			if len(p) > maxPayload {
				t.Fatalf("a piece has %d bytes", len(p))
			}
			if signal, ok := a.add(strings.Fields(p)[1:]); ok {
				got, arrived = signal, arrived+1
				if i != len(pieces)-1 {
					t.Error("a signal was complete before its last piece")
				}
			}
		}
		if arrived != 1 || !bytes.Equal(got, signal) {
			t.Fatalf("signal %d of %d bytes arrived %d times", n, len(signal), arrived)
		}
		payloads = append(payloads, pieces...)
	}
	for range 20_000 {
		p := payloads[rng.IntN(len(payloads))]
		if signal, ok := a.add(strings.Fields(p)[1:]); ok && !sent[string(signal)] {
			t.Fatal("pieces of several signals became one")
		}
	}
}

func FuzzAssembly(f *testing.F) {
	f.Add("node 1 0 1 aGk=\nnode 1 0 2 aGk=\nnode 1 1 2 aGk=")
	f.Add("node 1 -1 0 \nnode 1 0 999999999999999999999 aGk=\n")
	f.Fuzz(func(t *testing.T, lines string) {
		var a assembly
		for line := range strings.Lines(lines) {
			if signal, ok := a.add(strings.Fields(line)); ok && len(signal) > maxSignal {
				t.Errorf("a signal has %d bytes", len(signal))
			}
		}
	})
}

// TestNotifierGathers: of commits in quick succession only the first notifies. The
// events of the others are reported afterwards, and nothing is reported twice.
func TestNotifierGathers(t *testing.T) {
	t.Parallel()
	n := notifier{on: true, node: "me"}
	commit := func(name string, last feed.ID) string {
		changes := []feed.FeedChange{{Name: name, Row: &feed.FeedRow{Last: last}}}
		payload := n.forCommit(changes, 1)
		if payload != "" {
			n.committed(changes)
		}
		return payload
	}
	told := func(name string, last feed.ID) string { return n.forTold([]feed.Event{{Feed: name, ID: last}}) }
	if got := commit("a", 1); got != "grew me a 1" {
		t.Errorf("the first commit notifies %q", got)
	}
	if got := commit("a", 2); got != "" {
		t.Errorf("a commit right after it notifies %q", got)
	}
	if got := told("a", 1); got != "" {
		t.Errorf("an announced event is announced again: %q", got)
	}
	if got := told("a", 2); got != "grew me a 2" {
		t.Errorf("an event that was not announced yet is announced as %q", got)
	}
	n.last = time.Now().Add(-announceEvery)
	if got := commit("b", 1); got != "grew me b 1" {
		t.Errorf("a later commit notifies %q", got)
	}
	if len(n.announced) != 1 {
		t.Errorf("%v is remembered, which was told or is about to be", n.announced)
	}
	for i := range 3 * watchFeeds {
		n.last = time.Time{}
		commit(fmt.Sprint(i), 1)
	}
	if len(n.announced) > watchFeeds+1 {
		t.Errorf("%d feeds are remembered", len(n.announced))
	}
	n.on = false
	if got := n.forCommit([]feed.FeedChange{{Name: "c", Row: &feed.FeedRow{Last: 1}}}, 1); got != "" {
		t.Errorf("without a bus a commit notifies %q", got)
	}
}
