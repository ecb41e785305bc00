package server

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rejoin/rejoin/server/engine"
)

// unseenBytes limits a write where the socket does not reveal whether the client reads.
// There, only the end of each write reveals it.
const unseenBytes = 8 << 10

// stallWatch ends a write when its client has read nothing within the timeout. A simple
// deadline would also end the write of a client that reads slowly: a write proceeds only
// when a third of the socket's buffer is free again, and the kernel makes that buffer
// megabytes large.
type stallWatch struct {
	rc      *http.ResponseController
	conn    *net.TCPConn // nil if the socket does not reveal what this client reads
	timeout time.Duration
	slow    *atomic.Int64 // counts writes that have waited for a check

	mu      sync.Mutex
	timer   *time.Timer
	writing bool
	counted bool // in slow
	unread  int  // bytes that the kernel holds for the client
	checks  int  // how many checks in a row have found the same number
}

// stallChecks is the number of checks within the timeout. The watch counts checks, not
// time: a process that was suspended must give its client time to read.
const stallChecks = 4

func newStallWatch(r *http.Request, rc *http.ResponseController, timeout time.Duration, slow *atomic.Int64) *stallWatch {
	w := &stallWatch{rc: rc, timeout: timeout, slow: slow}
	if conn := tcpOf(r.Context()); conn != nil && r.ProtoMajor == 1 {
		if _, known := engine.Unread(conn); known {
			w.conn = conn
		}
	}
	return w
}

// tcpOf returns the TCP connection from [WithConn], even below TLS, or nil.
func tcpOf(ctx context.Context) *net.TCPConn {
	conn := ctx.Value(connKey{})
	for {
		over, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			tcp, _ := conn.(*net.TCPConn)
			return tcp
		}
		conn = over.NetConn()
	}
}

// begin starts the watch before a write. It replaces any other deadline.
func (w *stallWatch) begin() {
	_ = w.rc.SetWriteDeadline(time.Time{})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing, w.unread, w.checks = true, w.held(), 0
	if w.timer == nil {
		w.timer = time.AfterFunc(w.timeout/stallChecks, w.check)
	} else {
		w.timer.Reset(w.timeout / stallChecks)
	}
}

// end stops the watch after a write. It does not change the deadline.
func (w *stallWatch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing = false
	w.timer.Stop()
	if w.counted {
		w.counted = false
		w.slow.Add(-1)
	}
}

func (w *stallWatch) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.writing {
		return
	}
	if !w.counted {
		w.counted = true
		w.slow.Add(1)
	}
	if n := w.held(); n != w.unread {
		w.unread, w.checks = n, 0
	} else {
		w.checks++
	}
	if w.checks == stallChecks {
		_ = w.rc.SetWriteDeadline(time.Now().Add(-time.Second))
		return
	}
	w.timer.Reset(w.timeout / stallChecks)
}

func (w *stallWatch) held() int {
	if w.conn == nil {
		return 0
	}
	n, _ := engine.Unread(w.conn)
	return n
}
