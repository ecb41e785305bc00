//go:build !linux

package bench

import (
	"context"
	"time"
)

// timer sleeps as well as Go does.
type timer struct{}

func newTimer() (timer, error) { return timer{}, nil }

func (timer) sleep(ctx context.Context, d time.Duration) error { return wait(ctx, d) }

func (timer) close() {}
