//go:build !linux

package sqlite

// reserve is room on the disk that is kept for what makes room: here there is
// none.
type reserve struct{ path string }

func (reserve) fill() {}

func (reserve) shareWith(string) {}

func (reserve) release() bool { return false }
