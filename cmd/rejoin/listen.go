package main

import (
	"context"
	"fmt"
	"net"
	"time"
)

// listen listens on address. A peer that stops acknowledging what it is sent,
// because it is gone without a word, is given up after timeout; the kernel
// alone would take a quarter of an hour.
func listen(ctx context.Context, address string, timeout time.Duration) (net.Listener, error) {
	config := net.ListenConfig{Control: giveUpAfter(timeout), KeepAlive: acceptedKeepAlive}
	// Multipath TCP, Go's default, does not have the option.
	config.SetMultipathTCP(false)
	listener, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return listener, nil
}
