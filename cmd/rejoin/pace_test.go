package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
)

func TestCollectAt(t *testing.T) {
	for _, test := range []struct {
		live uint64
		want int
	}{{0, 400}, {1 << 20, 400}, {4 << 20, 200}, {8 << 20, 100}, {16 << 20, 50}, {1 << 30, 50}} {
		if got := collectAt(test.live); got != test.want {
			t.Errorf("with %d bytes live: got %d, want %d", test.live, got, test.want)
		}
	}
}

// TestPaceCollector: a heap that grows is collected at another pace.
func TestPaceCollector(t *testing.T) {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		t.Fatal("run this test without GOGC and GOMEMLIMIT in the environment")
	}
	defer debug.SetGCPercent(100)
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	paceCollector(1<<30, func() int { return 1000 })
	held := make([]byte, 200<<20)
	deadline := time.Now().Add(10 * time.Second)
	for {
		runtime.GC()
		percent := debug.SetGCPercent(100)
		debug.SetGCPercent(percent)
		if percent == 50 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("with %d bytes held, the percentage is still %d", len(held), percent)
		}
	}
	runtime.KeepAlive(held)
	if limit := debug.SetMemoryLimit(-1); limit != 1<<30+overhead+1000*subscriberBytes {
		t.Errorf("the limit is %d", limit)
	}
}
