package feed

import (
	"strings"
	"testing"
	"time"
)

// BenchmarkLogAppendEncode adds one event to a log and encodes it, as the first
// subscriber that reads the event does.
func BenchmarkLogAppendEncode(b *testing.B) {
	l := loaded(1, 0)
	now := time.Now()
	event := []Event{{Feed: "a", Data: strings.Repeat("x", 200)}}
	calls := 0
	enc := counter{&calls}
	b.ReportAllocs()
	for b.Loop() {
		event[0].ID++
		l.accept(event, now)
		d, _ := l.read(event[0].ID - 1)
		d.Encoded(enc)
	}
}

// BenchmarkLogRead reads encoded bytes that another subscriber has read before.
func BenchmarkLogRead(b *testing.B) {
	l := loaded(1, 0)
	l.take(stretch("a", 1, 100)...)
	calls := 0
	enc := counter{&calls}
	b.ReportAllocs()
	for b.Loop() {
		d, _ := l.read(99)
		d.Encoded(enc)
	}
}

// BenchmarkWake wakes 1,000 subscribers.
func BenchmarkWake(b *testing.B) {
	l, dispatcher := loaded(1, 0), &Dispatcher{more: make(chan struct{}, 1)}
	called := 0
	for range 1000 {
		l.attach(waiting(dispatcher, func() { called++ }))
	}
	b.ReportAllocs()
	for b.Loop() {
		called = 0
		l.wake()
		for dispatcher.Step() {
		}
		if called != 1000 {
			b.Fatal(called)
		}
	}
}
