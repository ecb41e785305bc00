package feed

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func begin(fn func()) { go fn() }

func TestCallGroupShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := callGroup[string, int]{}
		calls, open := 0, make(chan struct{})
		fn := func() (int, error) {
			calls++
			<-open
			return calls, nil
		}
		first, second := g.do("a", begin, fn), g.do("a", begin, fn)
		other := g.do("b", begin, func() (int, error) { return 9, nil })
		<-other.done
		close(open)
		<-first.done
		<-second.done
		if first != second || calls != 1 || first.value != 1 || other.value != 9 {
			t.Errorf("%d calls, values %d and %d", calls, first.value, other.value)
		}
		// Without keep, a result reaches only the callers that waited for it.
		third := g.do("a", begin, fn)
		<-third.done
		if third.value != 2 || len(g.calls) != 0 {
			t.Errorf("value %d, %d calls kept", third.value, len(g.calls))
		}
	})
}

// A caller whose context ends leaves the call to the others.
func TestCallGroupWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, open := callGroup[string, int]{}, make(chan struct{})
		fn := func() (int, error) { <-open; return 7, nil }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := g.do("a", begin, fn).wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
		call := g.do("a", begin, fn)
		close(open)
		if got, err := call.wait(t.Context()); got != 7 || err != nil {
			t.Errorf("got %d, %v", got, err)
		}
	})
}

func TestCallGroupKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := callGroup[int, int]{keep: time.Second, most: 2}
		calls := 0
		ask := func(key int, err error) int {
			c := g.do(key, begin, func() (int, error) { calls++; return calls, err })
			<-c.done
			synctest.Wait()
			return c.value
		}
		ask(1, nil)
		time.Sleep(time.Second - 1)
		if got := ask(1, nil); got != 1 {
			t.Errorf("a result that is kept was asked for again: %d", got)
		}
		time.Sleep(2 * time.Nanosecond)
		synctest.Wait()
		if got := ask(1, nil); got != 2 {
			t.Errorf("a result was kept for too long: %d", got)
		}
		ask(2, errors.New("no"))
		if got := ask(2, nil); got != 4 {
			t.Errorf("an error was kept: %d", got)
		}
		ask(3, nil) // the third result; two are kept
		state := func() (kept, calls int) {
			synctest.Wait()
			g.mu.Lock()
			defer g.mu.Unlock()
			return g.kept, len(g.calls)
		}
		if kept, calls := state(); kept != 2 || calls != 2 {
			t.Errorf("%d results kept, %d in the map, want 2", kept, calls)
		}
		time.Sleep(2 * time.Second)
		if kept, calls := state(); kept != 0 || calls != 0 {
			t.Errorf("%d results kept, %d in the map after their time", kept, calls)
		}
	})
}

// A forgotten result stays with the callers that have it already.
func TestCallGroupForget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := callGroup[string, int]{keep: time.Second, most: 2}
		calls, open := 0, make(chan struct{})
		ask := func(key string) *call[int] {
			return g.do(key, begin, func() (int, error) {
				calls++
				mine := calls
				if key == "a" {
					<-open
				}
				return mine, nil
			})
		}
		kept := ask("b")
		<-kept.done
		first := ask("a")
		synctest.Wait()
		g.forget(func(key string) bool { return key == "a" })
		second := ask("a")
		close(open)
		<-first.done
		<-second.done
		if first == second || first.value == second.value {
			t.Errorf("both are %d", second.value)
		}
		if ask("a") != second || ask("b") != kept {
			t.Error("what was not forgotten was asked for again")
		}
		g.forget(func(key string) bool { return key == "b" })
		if ask("b") == kept {
			t.Error("what was kept was not forgotten")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.kept != 0 || len(g.calls) != 0 {
			t.Errorf("%d results kept, %d in the map after their time", g.kept, len(g.calls))
		}
	})
}

// Calls without a slot wait in a queue, without a goroutine, and those that every caller
// has left are not made.
func TestCallGroupSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slots, calls = 2, 1000
		taken, begun := 0, 0
		g := callGroup[int, int]{keep: time.Hour, slots: slots, count: func(n int) { taken += n }}
		begin := func(fn func()) { begun++; go fn() }
		var mu sync.Mutex
		var made []int
		all := make([]*call[int], calls)
		for i := range all {
			all[i] = g.do(i, begin, func() (int, error) {
				mu.Lock()
				defer mu.Unlock()
				made = append(made, i)
				return i, nil
			})
		}
		synctest.Wait()
		if begun != slots || taken != slots {
			t.Fatalf("%d calls on goroutines, %d slots taken, want %d", begun, taken, slots)
		}
		g.leave(all[2])
		for i, c := range all {
			if i == 2 {
				continue
			}
			synctest.Wait()
			value, err, ok := g.result(c)
			if g.leave(c); value != i || err != nil || !ok {
				t.Fatalf("result %d is %d, %v, %v", i, value, err, ok)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		slices.Sort(made)
		if len(made) != calls-1 || made[2] != 3 || taken != 0 || len(g.calls) != 0 || g.queue != nil {
			t.Errorf("%d calls made, the third is %d; %d slots taken, %d calls and %d queued left", len(made), made[2], taken, len(g.calls), len(g.queue))
		}
	})
}
