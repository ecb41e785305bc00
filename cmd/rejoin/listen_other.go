//go:build !linux

package main

import (
	"syscall"
	"time"
)

// giveUpAfter leaves it to the kernel: only Linux has the option.
func giveUpAfter(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }
