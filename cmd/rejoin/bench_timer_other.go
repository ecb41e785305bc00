//go:build !linux

package main

import (
	"context"
	"time"
)

// benchTimer sleeps as well as Go does.
type benchTimer struct{}

func newBenchTimer() (benchTimer, error) { return benchTimer{}, nil }

func (benchTimer) sleep(ctx context.Context, d time.Duration) error { return sleep(ctx, d) }

func (benchTimer) close() {}
