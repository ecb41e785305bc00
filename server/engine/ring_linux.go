//go:build !386 && !s390x

package engine

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

// ring submits many writes to the kernel in one call, with io_uring. The types and
// numbers below are from <linux/io_uring.h>; see io_uring_setup(2) and
// io_uring_enter(2).
type ring struct {
	fd      int
	memory  []byte // both queues
	entries []byte

	sqTail, cqHead, cqTail *uint32
	sqMask, cqMask         uint32
	sqes                   []sqe
	cqes                   []cqe

	staged []staged
}

// staged is a write before its submission.
type staged struct {
	socket *Socket
	bytes  []byte
}

// ringWrites limits the writes of one submission, which takes about a millisecond.
const ringWrites = 256

const (
	sysSetup, sysEnter = 425, 426

	featSingleMmap = 1 << 0
	coopTaskrun    = 1 << 8
	getEvents      = 1 << 0
	opSend         = 26
	offsetSQEs     = 0x10000000
)

type ringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, queue uint32
	reserved                                                [3]uint32
	sq                                                      sqOffsets
	cq                                                      cqOffsets
}

type sqOffsets struct {
	head, tail, mask, entries, flags, dropped, array, reserved uint32
	address                                                    uint64
}

type cqOffsets struct {
	head, tail, mask, entries, overflow, cqes, flags, reserved uint32
	address                                                    uint64
}

type sqe struct {
	op, flags        uint8
	priority         uint16
	fd               int32
	offset, address  uint64
	length, msgFlags uint32
	data             uint64
	buffer, person   uint16
	file             int32
	padding          [2]uint64
}

type cqe struct {
	data  uint64
	res   int32
	flags uint32
}

// newRing returns a ring, or nil where the kernel or a sandbox offers none that works.
func newRing() *ring {
	r, err := openRing()
	if err != nil {
		return nil
	}
	if !r.works() {
		r.close()
		return nil
	}
	return r
}

func openRing() (*ring, error) {
	params := ringParams{flags: coopTaskrun}
	fd, _, errno := syscall.Syscall(sysSetup, ringWrites, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return nil, errno
	}
	r := &ring{fd: int(fd)}
	syscall.CloseOnExec(r.fd)
	if params.features&featSingleMmap == 0 {
		r.close()
		return nil, syscall.ENOSYS
	}
	const rw, shared = syscall.PROT_READ | syscall.PROT_WRITE, syscall.MAP_SHARED | syscall.MAP_POPULATE
	size := max(params.sq.array+params.sqEntries*4, params.cq.cqes+params.cqEntries*uint32(unsafe.Sizeof(cqe{})))
	var err error
	if r.memory, err = syscall.Mmap(r.fd, 0, int(size), rw, shared); err == nil {
		r.entries, err = syscall.Mmap(r.fd, offsetSQEs, int(params.sqEntries)*int(unsafe.Sizeof(sqe{})), rw, shared)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	at := func(offset uint32) *uint32 { return (*uint32)(unsafe.Pointer(&r.memory[offset])) }
	r.sqTail, r.cqHead, r.cqTail = at(params.sq.tail), at(params.cq.head), at(params.cq.tail)
	r.sqMask, r.cqMask = *at(params.sq.mask), *at(params.cq.mask)
	r.sqes = unsafe.Slice((*sqe)(unsafe.Pointer(&r.entries[0])), params.sqEntries)
	r.cqes = unsafe.Slice((*cqe)(unsafe.Pointer(&r.memory[params.cq.cqes])), params.cqEntries)
	// Each slot of the queue always refers to the entry of the same number.
	array := unsafe.Slice(at(params.sq.array), params.sqEntries)
	for i := range array {
		array[i] = uint32(i)
	}
	return r, nil
}

func (r *ring) close() {
	if r.memory != nil {
		_ = syscall.Munmap(r.memory)
	}
	if r.entries != nil {
		_ = syscall.Munmap(r.entries)
	}
	_ = syscall.Close(r.fd)
}

func (r *ring) empty() bool { return len(r.staged) == 0 }

func (r *ring) full() bool { return len(r.staged) == ringWrites }

func (r *ring) add(s *Socket, b []byte) { r.staged = append(r.staged, staged{s, b}) }

// submit performs the staged writes and hands each socket its result.
func (r *ring) submit() {
	switch len(r.staged) {
	case 0:
		return
	case 1: // a plain write is cheaper
		w := r.staged[0]
		r.staged[0], r.staged = staged{}, r.staged[:0]
		w.socket.staged = false
		n, err := send(int(w.socket.fd), w.bytes, 0)
		w.socket.handleStaged(w.bytes, n, err)
		return
	}
	for i, w := range r.staged {
		r.prepare(i, int(w.socket.fd), w.bytes)
	}
	r.enter(len(r.staged))
	r.reap(func(i, n int, err error) {
		w := &r.staged[i]
		w.socket.staged = false
		w.socket.handleStaged(w.bytes, n, err)
	})
	clear(r.staged)
	r.staged = r.staged[:0]
}

func (r *ring) prepare(i, fd int, b []byte) {
	tail := *r.sqTail + uint32(i)
	r.sqes[tail&r.sqMask] = sqe{
		op:      opSend,
		fd:      int32(fd),
		address: uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))),
		length:  uint32(len(b)),
		// With MSG_DONTWAIT, an entry completes during its submission.
		msgFlags: syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL,
		data:     uint64(i),
	}
}

// enter submits n entries and waits until all of them have completed.
func (r *ring) enter(n int) {
	atomic.StoreUint32(r.sqTail, *r.sqTail+uint32(n))
	for unsubmitted := n; ; {
		done := int(atomic.LoadUint32(r.cqTail) - atomic.LoadUint32(r.cqHead))
		if unsubmitted == 0 && done >= n {
			return
		}
		submitted, _, errno := syscall.Syscall6(sysEnter, uintptr(r.fd), uintptr(unsubmitted), uintptr(n), getEvents, 0, 0)
		switch errno {
		case 0:
			unsubmitted -= int(submitted)
		case syscall.EINTR, syscall.EAGAIN, syscall.EBUSY:
		default:
			panic("io_uring_enter: " + errno.Error()) // of a ring that has worked
		}
	}
}

// reap calls of for each completed entry.
func (r *ring) reap(of func(i, n int, err error)) {
	head, tail := *r.cqHead, atomic.LoadUint32(r.cqTail)
	for ; head != tail; head++ {
		c := r.cqes[head&r.cqMask]
		if c.res < 0 {
			of(int(c.data), 0, syscall.Errno(-c.res))
		} else {
			of(int(c.data), int(c.res), nil)
		}
	}
	atomic.StoreUint32(r.cqHead, head)
}

// works reports whether writes do not block, and have the right results: complete,
// partial, refused.
func (r *ring) works() bool {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	_ = syscall.SetsockoptInt(pair[0], syscall.SOL_SOCKET, syscall.SO_SNDBUF, 4096)
	big := make([]byte, 1<<20)
	type result struct {
		n   int
		err error
	}
	var results [3]result
	for i, b := range [][]byte{big[:1], big, big[:1]} {
		r.prepare(i, pair[0], b)
	}
	atomic.StoreUint32(r.sqTail, *r.sqTail+uint32(len(results)))
	// It does not wait: an entry that has not completed by then fails the test.
	_, _, errno := syscall.Syscall6(sysEnter, uintptr(r.fd), uintptr(len(results)), 0, getEvents, 0, 0)
	r.reap(func(i, n int, err error) { results[i] = result{n, err} })
	return errno == 0 && results[0].n == 1 && 0 < results[1].n && results[1].n < len(big) &&
		results[2].err == syscall.EAGAIN
}
