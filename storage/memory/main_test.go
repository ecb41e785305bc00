package memory

import (
	"testing"

	"go.uber.org/goleak"
)

// What was closed leaves no goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
