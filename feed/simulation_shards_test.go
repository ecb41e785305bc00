package feed_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// A simulation runs one goroutine at a time. So the seeds are shared among as many
// processes as there are processors, and each process uses one processor.
var (
	firstFlag = flag.Uint64("simulation-first", 1, "the first seed of this process")
	everyFlag = flag.Uint64("simulation-every", 0, "run this process's share of the seeds: every so many")
)

// simulateShard runs the seeds of this process.
func simulateShard(t *testing.T) {
	seeds, steps := 0, 0
	for seed := *firstFlag; seed <= uint64(*seedsFlag); seed += *everyFlag {
		w, err := simulate(t, seed, nil)
		if err != nil {
			t.Fatalf("seed %d: %v\n%srun it alone with: go test ./feed -run '^TestSimulation$' -v -args -simulation-seed=%d",
				seed, err, w.story(), seed)
		}
		seeds++
		steps += len(w.trace)
		if seeds%100 == 0 || seed+*everyFlag > uint64(*seedsFlag) {
			fmt.Printf("simulated %d %d\n", seeds, steps)
			seeds, steps = 0, 0
		}
	}
}

// shards counts what the processes have done.
type shards struct {
	mu           sync.Mutex
	seeds, steps int
}

func (s *shards) add(seeds, steps int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seeds += seeds
	s.steps += steps
}

// simulateAll runs the first seeds, in as many processes as there are
// processors, and logs the progress.
func simulateAll(t *testing.T, seeds int, progress time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	if deadline, ok := t.Deadline(); ok {
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-10*time.Second))
		defer cancel()
	}
	var done shards
	say := func() {
		done.mu.Lock()
		defer done.mu.Unlock()
		t.Logf("%d of %d seeds, %d steps, %.0f seeds a second", done.seeds, seeds, done.steps, float64(done.seeds)/time.Since(began).Seconds())
	}
	stop := make(chan struct{})
	var work, ticks sync.WaitGroup
	ticks.Go(func() {
		ticker := time.NewTicker(progress)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				say()
			case <-stop:
				return
			}
		}
	})
	every := runtime.GOMAXPROCS(0)
	for first := range every {
		work.Go(func() {
			if story, err := runShard(ctx, first+1, every, seeds, done.add); err != nil && ctx.Err() == nil {
				t.Errorf("a process of the simulation: %v\n%s", err, story)
				cancel()
			}
		})
	}
	work.Wait()
	close(stop)
	ticks.Wait()
	say()
	if done.seeds < seeds && !t.Failed() {
		t.Errorf("only %d of %d seeds before the deadline of this test: it takes a longer -timeout, or 0 for none", done.seeds, seeds)
	}
}

// runShard runs a process with its share of the seeds. It passes each count of seeds and
// steps that the process writes to add, and returns the rest of its output.
func runShard(ctx context.Context, first, every, seeds int, add func(seeds, steps int)) (story string, err error) {
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestSimulation$", "-test.timeout=0",
		fmt.Sprint("-simulation-first=", first), fmt.Sprint("-simulation-every=", every), fmt.Sprint("-simulation-seeds=", seeds))
	// Most allocations are short-lived, so that frequent collections are of no use.
	cmd.Env = append(cmd.Environ(), "GOMAXPROCS=1", "GOGC=400")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return "", err
	}
	var other strings.Builder
	lines := bufio.NewReader(out)
	for {
		line, readErr := lines.ReadString('\n')
		var n, steps int
		if _, err := fmt.Sscanf(line, "simulated %d %d\n", &n, &steps); err == nil {
			add(n, steps)
		} else {
			other.WriteString(line)
		}
		if readErr != nil {
			break
		}
	}
	return other.String(), cmd.Wait()
}
