//go:build !linux

package sqlite

// reserve is disk space for the transactions that free space. Here there is none.
type reserve struct{ path string }

func (reserve) fill() {}

func (reserve) shareWith(string) {}

func (reserve) release() bool { return false }
