package sqlite

import "os"

// reserve is room on the disk that is kept for what makes room: a file beside the
// store's, which is emptied when the disk is full and filled again afterwards.
type reserve struct{ path string }

const (
	reserveSize = 4 << 20 // several steps of sweeping in the log
	reserveLast = 4 << 10 // the smallest piece to try for

	logShare = 1 << 20 // the part of it that the log gets
)

// fill takes what the reserve lacks, or as much of it as there is.
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
			return // not to be had on this file system
		}
		size = now.Size()
	}
}

// shareWith gives the log at path a part of what was released. The log keeps it and
// is written from its beginning again and again, so that events can take the room
// in the store's file that was made there.
func (reserve) shareWith(path string) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer file.Close()
	_ = allocate(file, logShare, logShare)
}

// release gives the reserve to the disk, and says whether it held anything.
func (r reserve) release() bool {
	info, err := os.Stat(r.path)
	return err == nil && info.Size() > 0 && os.Truncate(r.path, 0) == nil
}
