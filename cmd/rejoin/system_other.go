//go:build !linux

package main

import (
	"syscall"
	"time"
)

// acceptedKeepAlive is Go's own default.
const acceptedKeepAlive = 0

// giveUpAfter leaves it to the kernel: only Linux has the option.
func giveUpAfter(time.Duration) func(network, address string, c syscall.RawConn) error { return nil }

func descriptorLimit() (limit uint64, known bool) { return 0, false }
