//go:build !linux

package postgres

import "syscall"

// limitSilence does nothing: other systems have no TCP_USER_TIMEOUT.
func limitSilence(_, _ string, _ syscall.RawConn) error { return nil }
