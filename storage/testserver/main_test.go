package testserver

import (
	"testing"

	"go.uber.org/goleak"
)

// Closing leaves no goroutine behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
