//go:build !linux

package postgres

import "syscall"

// limitSilence does nothing: other systems go without TCP_USER_TIMEOUT.
func limitSilence(_, _ string, _ syscall.RawConn) error { return nil }
