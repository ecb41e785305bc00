package sqlite

import "os"

// reserve is disk space for the transactions that free space: a file beside the store's,
// which is emptied when the disk is full and filled again afterwards.
type reserve struct{ path string }

const (
	reserveSize = 4 << 20 // enough log for several sweeps
	reserveLast = 4 << 10 // the smallest piece to try for

	logShare = 1 << 20 // the part of the reserve that the log gets
)

// fill grows the reserve to its full size, or as far as the disk allows.
func (r reserve) fill() {
	if info, err := os.Stat(r.path); err == nil && info.Size() == reserveSize {
		return
	}
	file, err := os.OpenFile(r.path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return
	}
	size, piece := info.Size(), int64(reserveSize)
	for size < reserveSize && piece >= reserveLast {
		if allocate(file, min(size+piece, reserveSize), 1) != nil {
			piece /= 4
			continue
		}
		now, err := file.Stat()
		if err != nil || now.Size() == size {
			return // this file system cannot allocate
		}
		size = now.Size()
	}
}

// shareWith gives the log at path a part of the released space. The log keeps it and is
// rewritten from its beginning, so that events can use the space that was freed in the
// store's file.
func (reserve) shareWith(path string) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer file.Close()
	_ = allocate(file, logShare, logShare)
}

// release frees the reserve's disk space, and reports whether it held any.
func (r reserve) release() bool {
	info, err := os.Stat(r.path)
	return err == nil && info.Size() > 0 && os.Truncate(r.path, 0) == nil
}
