package storagetest

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// TestSignals tests the signals of a bus that is a [feed.Signaler]. It calls
// fresh once for each subtest, for an unused medium.
//
// Signals may be lost. So the tests send a signal again until it arrives, and demand of
// arriving signals only that they were sent.
func TestSignals(t *testing.T, fresh func(t *testing.T) Joiner) {
	runEach(t, fresh, []test[Joiner]{
		{"payloads arrive as they were sent", testSignalPayloads},
		{"several listeners", testSignalListeners},
		{"signals apart from events", testSignalsApart},
		{"concurrent signals", testConcurrentSignals},
		{"a slow listener holds up nobody", testSlowListener},
		{"listening ends", testListeningEnds},
		{"listening again", testListeningAgain},
		{"signal ends", testSignalEnds},
		{"signal with nobody there", testSignalToNobody},
		{"signal on a closed bus", testSignalClosed},
	})
}

// listener records the signals that it receives.
type listener struct {
	*callee
	got map[string]int
}

func (l *listener) receive(payload []byte) {
	l.call(func() { l.got[string(payload)]++ })
}

func (l *listener) count(payload string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.got[payload]
}

// signalBus is a bus that carries signals.
type signalBus interface {
	feed.Bus
	feed.Signaler
}

// signaler returns a node's bus until the test ends.
func signaler(t *testing.T, join Joiner) signalBus {
	t.Helper()
	s, ok := connect(t, join).(signalBus)
	if !ok {
		t.Fatal("the bus carries no signals")
	}
	return s
}

// listen runs a Signals until the test or stop ends it.
func listen(t *testing.T, s signalBus) (l *listener, stop func()) {
	t.Helper()
	l = &listener{newCallee(), make(map[string]int)}
	return l, attend(t, "signals", func(ctx context.Context) error { return s.Signals(ctx, l.receive) }, l.callee)
}

// send sends the payload until the listeners have it once more than before.
func send(t *testing.T, s feed.Signaler, payload string, listeners ...*listener) {
	t.Helper()
	before := make([]int, len(listeners))
	for i, l := range listeners {
		before[i] = l.count(payload)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		signalOnce(t, s, payload)
		all := true
		for i, l := range listeners {
			all = l.wait(200*time.Millisecond, func() bool { return l.got[payload] > before[i] }) && all
		}
		if all {
			return
		}
	}
	t.Fatalf("%.40q was sent and has not arrived", payload)
}

func signalOnce(t *testing.T, s feed.Signaler, payload string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Signal(ctx, []byte(payload)); err != nil {
		t.Errorf("signal: %v", err)
	}
}

// A payload may be any bytes, of any number.
func testSignalPayloads(t *testing.T, join Joiner) {
	a, b := signaler(t, join), signaler(t, join)
	l, _ := listen(t, b)
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	payloads := []string{"x", "", "\x00", "\r\n$3\r\n", "caf\u00e9 \xff\xfe", string(every), string(bytes.Repeat(every, 1024))}
	for _, payload := range payloads {
		send(t, a, payload, l)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.got) != len(payloads) {
		t.Errorf("%d payloads were sent, %d different ones arrived", len(payloads), len(l.got))
	}
}

func testSignalListeners(t *testing.T, join Joiner) {
	a, b, c := signaler(t, join), signaler(t, join), signaler(t, join)
	atB, _ := listen(t, b)
	atC, stop := listen(t, c)
	send(t, a, "from a", atB, atC)
	send(t, b, "from b", atC)
	send(t, c, "from c", atB)
	stop()
	send(t, a, "from a", atB)
}

// Events and signals do not interfere.
func testSignalsApart(t *testing.T, join Joiner) {
	a, b := signaler(t, join), signaler(t, join)
	r := newReceiver("chat")
	tail(t, b, r)
	l, _ := listen(t, b)
	for n := range 5 {
		arrive(t, a, committed("chat", feed.ID(n), 1), r)
		send(t, a, "signal", l)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.got) != 1 {
		t.Errorf("the listener was handed %d different payloads, of which one was a signal", len(l.got))
	}
}

func testConcurrentSignals(t *testing.T, join Joiner) {
	a, b := signaler(t, join), signaler(t, join)
	l, _ := listen(t, b)
	send(t, a, "first", l)
	const senders, each = 8, 50
	sent := map[string]bool{"first": true}
	var wg sync.WaitGroup
	for w := range senders {
		for n := range each {
			sent[fmt.Sprintf("%d of %d", n, w)] = true
		}
		wg.Go(func() {
			for n := range each {
				signalOnce(t, a, fmt.Sprintf("%d of %d", n, w))
			}
		})
	}
	wg.Wait()
	send(t, a, "first", l)
	l.mu.Lock()
	defer l.mu.Unlock()
	for payload := range l.got {
		if !sent[payload] {
			t.Errorf("%q arrived and was never sent", payload)
		}
	}
}

// A listener that is blocked may miss signals, and gets those that are sent after it has
// caught up.
func testSlowListener(t *testing.T, join Joiner) {
	a, b, c := signaler(t, join), signaler(t, join), signaler(t, join)
	slow, _ := listen(t, b)
	quick, _ := listen(t, c)
	send(t, a, "first", slow, quick)
	release := slow.hold()
	t.Cleanup(release)
	payload := string(make([]byte, 8<<10))
	for range 2000 {
		signalOnce(t, a, payload)
	}
	send(t, a, "second", quick)
	release()
	send(t, a, "third", slow, quick)
}

func testListeningEnds(t *testing.T, join Joiner) {
	s := signaler(t, join)
	_, stop := listen(t, s)
	stop() // at once
	l, stop := listen(t, s)
	send(t, signaler(t, join), "x", l)
	stop()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Signals(ctx, func([]byte) {}); err != nil {
		t.Errorf("signals under an ended context: got %v, want nil", err)
	}
}

func testListeningAgain(t *testing.T, join Joiner) {
	a, b := signaler(t, join), signaler(t, join)
	for range 3 {
		l, stop := listen(t, b)
		send(t, a, "x", l)
		stop()
		signalOnce(t, a, "in between")
		if l.count("in between") > 0 {
			t.Error("a listener was called after it had ended")
		}
	}
}

// Signal returns when its context ends.
func testSignalEnds(t *testing.T, join Joiner) {
	a, b := signaler(t, join), signaler(t, join)
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	began := time.Now()
	for range 100 {
		// The bus may or may not return an error.
		_ = a.Signal(ctx, []byte("late"))
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("100 signals under an ended context took %v", took)
	}
	l, _ := listen(t, b)
	send(t, a, "x", l)
}

func testSignalToNobody(t *testing.T, join Joiner) {
	a, b := signaler(t, join), signaler(t, join)
	for range 200 {
		signalOnce(t, a, "to nobody")
	}
	l, _ := listen(t, b)
	send(t, a, "to somebody", l)
	if n := l.count("to nobody"); n > 0 {
		t.Errorf("%d signals from before it listened arrived at a listener", n)
	}
}

func testSignalClosed(t *testing.T, join Joiner) {
	b := join(t)
	s, ok := b.(feed.Signaler)
	if !ok {
		t.Fatal("the bus carries no signals")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.Signal(ctx, []byte("x")); err == nil {
		t.Error("signal on a closed bus: no error")
	}
}
