package redis_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"
)

// Closing leaves no goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// goroutinesEnd waits until no goroutine is left that began after before was made,
// which is [goleak.IgnoreCurrent]. Parallel tests begin some, so the test that calls
// it must not be parallel.
func goroutinesEnd(t *testing.T, before goleak.Option) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		err := goleak.Find(before) // it tries for a while
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}
