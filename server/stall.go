package server

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/rejoin/rejoin/server/engine"
)

// unseenBytes is how much is written at once where the socket does not show
// whether the client reads: the end of each write does.
const unseenBytes = 8 << 10

// stallWatch breaks a write off when its client has read nothing within the
// timeout. A deadline for the write would break off a client that reads slowly:
// a write goes on only when a third of the socket's buffer is free again, and
// the kernel makes that buffer megabytes large.
type stallWatch struct {
	control *http.ResponseController
	conn    *net.TCPConn // nil if the socket does not show what one client reads
	timeout time.Duration

	mu      sync.Mutex
	timer   *time.Timer
	writing bool
	unread  int // bytes that the kernel holds …
	looks   int // … and how often in a row that was the same
}

// stallLooks is how often the watch looks within the timeout. It counts looks and
// not time: after the whole process has stood still, it is the client's turn.
const stallLooks = 4

func newStallWatch(r *http.Request, control *http.ResponseController, timeout time.Duration) *stallWatch {
	w := &stallWatch{control: control, timeout: timeout}
	if conn := tcpOf(r.Context()); conn != nil && r.ProtoMajor == 1 {
		if _, known := engine.Unread(conn); known {
			w.conn = conn
		}
	}
	return w
}

// tcpOf returns the TCP connection of [WithConn], also below TLS, or nil.
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

// begin is called before a write. No other deadline holds any more.
func (w *stallWatch) begin() {
	_ = w.control.SetWriteDeadline(time.Time{})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing, w.unread, w.looks = true, w.held(), 0
	if w.timer == nil {
		w.timer = time.AfterFunc(w.timeout/stallLooks, w.look)
	} else {
		w.timer.Reset(w.timeout / stallLooks)
	}
}

// end is called after a write, whose deadline is left alone from then on.
func (w *stallWatch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing = false
	w.timer.Stop()
}

func (w *stallWatch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.writing {
		return
	}
	if n := w.held(); n != w.unread {
		w.unread, w.looks = n, 0
	} else {
		w.looks++
	}
	if w.looks == stallLooks {
		_ = w.control.SetWriteDeadline(time.Now().Add(-time.Second))
		return
	}
	w.timer.Reset(w.timeout / stallLooks)
}

func (w *stallWatch) held() int {
	if w.conn == nil {
		return 0
	}
	n, _ := engine.Unread(w.conn)
	return n
}
