package feed_test

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seedFlag  = flag.Uint64("simulation-seed", 0, "run the simulation with this seed alone, and print what happens")
	seedsFlag = flag.Int("simulation-seeds", 0, "run the simulation with so many seeds, and print how it gets on")
)

// simulate runs one seed in a bubble of its own. It returns the world at its
// end and what went wrong in it.
func simulate(t *testing.T, seed uint64, alter func(*plan)) (w *world, err error) {
	t.Helper()
	// If a hub spins, time stands still in the bubble for ever.
	watch := time.AfterFunc(20*time.Second, func() {
		panic(fmt.Sprintf("seed %d: a step without an end\n%s", seed, w.story()))
	})
	defer watch.Stop()
	synctest.Test(t, func(*testing.T) {
		w = newWorld(seed, alter)
		w.settle()
		err = w.run()
	})
	return w, err
}

// TestSimulation mixes replay and live delivery with all the faults that the seed
// decides on, and demands that no subscriber notices.
func TestSimulation(t *testing.T) {
	switch {
	case *seedFlag != 0:
		oneProcessor(t)
		w, err := simulate(t, *seedFlag, nil)
		t.Logf("seed %d:\n%s", *seedFlag, w.story())
		if err != nil {
			t.Fatal(err)
		}
	case *everyFlag != 0:
		simulateShard(t)
	case *seedsFlag > 0:
		simulateAll(t, *seedsFlag, 10*time.Second)
	case raceEnabled:
		simulateAll(t, 300, time.Hour) // for races alone: without the detector, 30 times as many run as quickly
	case testing.Short():
		simulateAll(t, 1000, time.Hour)
	default:
		simulateAll(t, 10_000, time.Hour)
	}
}

// oneProcessor makes the goroutines of a bubble take turns, so that a seed always
// runs the same way. It is also much faster, because they never have anything to do
// at the same time.
func oneProcessor(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// TestSimulationReplays demands that a seed always runs the same way. Otherwise it
// would be useless to print the seed of a failure.
func TestSimulationReplays(t *testing.T) {
	oneProcessor(t)
	seeds := 300
	if raceEnabled {
		seeds = 50
	}
	for seed := range uint64(seeds) {
		first, _ := simulate(t, seed+1, func(p *plan) { p.digest = true })
		again, _ := simulate(t, seed+1, func(p *plan) { p.digest = true })
		for i, d := range first.digests {
			if i >= len(again.digests) || d != again.digests[i] {
				other := strings.Join(again.digests[i:min(i+1, len(again.digests))], "")
				t.Fatalf("seed %d went another way with step %d of\n%sto\n%s\nor\n%s", seed+1, i, first.story(), d, other)
			}
		}
	}
}
