package testserver

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Conn is a connection through a [Proxy].
type Conn struct {
	proxy          *Proxy
	client, server *net.TCPConn
	split          func(*Conn, Direction, []byte) int
	pass           func(*Conn, Direction, []byte) bool
	seen           [2]atomic.Int64 // bytes by direction
	done           chan struct{}   // closed when the connection has ended

	// The proxy's mutex guards these.
	fault   Fault
	changed chan struct{} // closed when the fault changes
	passed  [2]int64      // bytes by direction, with this fault
	lossy   bool          // bytes are missing
}

// Set gives this connection a fault of its own, until the next call of
// [Proxy.Set] or [Proxy.Heal].
func (c *Conn) Set(f Fault) {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	c.set(f)
}

func (c *Conn) set(f Fault) {
	c.fault, c.passed = f, [2]int64{}
	close(c.changed)
	c.changed = make(chan struct{})
}

// Cut ends the connection, in the middle of whatever passes.
func (c *Conn) Cut(e End) {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	c.cut(e)
}

func (c *Conn) cut(e End) {
	if c.ended() {
		return
	}
	close(c.done)
	switch e { // either side may have gone by itself, which is no error
	case Reset:
		c.reset()
	case Close:
		_ = c.client.CloseWrite() // carry then reads it to its end, because unread bytes would cause a reset
		_ = c.server.Close()
	case Vanish:
		_ = c.client.Close()
	}
}

// Seen returns how many bytes of the direction came before the message that a
// [Proxy.Tap] looks at.
func (c *Conn) Seen(d Direction) int64 { return c.seen[d].Load() }

func (c *Conn) reset() {
	if !c.ended() {
		close(c.done)
	}
	reset(c.client)
	reset(c.server)
}

func reset(conn *net.TCPConn) {
	_ = conn.SetLinger(0) // it may be closed already
	_ = conn.Close()
}

func (c *Conn) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// carry carries the bytes of a direction until the connection has ended.
func (c *Conn) carry(d Direction) {
	from := c.client
	if d == ToClient {
		from = c.server
	}
	var messages []byte // the beginning of an incomplete one
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		switch {
		case c.ended() && err != nil:
			return
		case c.ended():
			continue // Cut has left this side open
		case c.split == nil && n > 0:
			c.offer(d, buf[:n])
		case n > 0:
			messages = append(messages, buf[:n]...)
			for size := 1; size > 0 && len(messages) > 0; messages = messages[size:] {
				if size = c.split(c, d, messages); size > 0 {
					c.offer(d, messages[:size])
				}
			}
		}
		if err != nil {
			c.end(d, err)
			return
		}
	}
}

// offer passes on a message unless it is to be lost, or the connection has ended.
func (c *Conn) offer(d Direction, message []byte) {
	if c.ended() {
		return
	}
	lost := c.pass != nil && !c.pass(c, d, message)
	c.seen[d].Add(int64(len(message)))
	// A loss is noted while the fault cannot change, so that Heal finds every
	// connection that has lost something.
	f := c.await(func(f Fault) bool { return f.flow(d).Hold && !lost }, func(f Fault) {
		if lost = lost || f.flow(d).Lose; lost && !c.ended() {
			c.lossy = true
			c.proxy.lost.Add(1)
		}
	})
	if !lost {
		c.send(d, f.flow(d), message)
	}
}

// end ends the connection after a read has failed, once that can get through.
func (c *Conn) end(d Direction, err error) {
	c.await(func(f Fault) bool { return f.flow(d).Hold || f.ToServer.Lose && f.ToClient.Lose }, func(Fault) {})
	if errors.Is(err, io.EOF) {
		c.Cut(Close)
	} else {
		c.Cut(Reset)
	}
}

// await waits until the fault no longer blocks, or the connection has ended, and
// calls then with the proxy locked. It returns the fault.
func (c *Conn) await(blocks func(Fault) bool, then func(Fault)) Fault {
	for {
		c.proxy.mu.Lock()
		f, changed := c.fault, c.changed
		blocked := blocks(f) && !c.ended()
		if !blocked {
			then(f)
		}
		c.proxy.mu.Unlock()
		if !blocked {
			return f
		}
		select {
		case <-changed:
		case <-c.done:
		}
	}
}

// send writes data at the pace of the flow, and as much as may pass.
func (c *Conn) send(d Direction, flow Flow, data []byte) {
	to := c.server
	if d == ToClient {
		to = c.client
	}
	c.wait(flow.Delay)
	for len(data) > 0 && !c.ended() {
		n := len(data)
		if flow.Rate > 0 {
			n = min(n, max(1, flow.Rate/50))
			c.wait(time.Second * time.Duration(n) / time.Duration(flow.Rate))
		}
		n, last, end := c.allow(d, n)
		if _, err := to.Write(data[:n]); err != nil {
			c.Cut(Reset)
		} else if last {
			c.cutByFault(end)
		}
		data = data[n:]
	}
}

// allow returns how many of n bytes may pass, and how the connection ends after
// them if they are the last.
func (c *Conn) allow(d Direction, n int) (allowed int, last bool, end End) {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	flow := c.fault.flow(d)
	if left := flow.CutAfter - c.passed[d]; flow.CutAfter > 0 && int64(n) >= left {
		n, last = int(left), true
	}
	c.passed[d] += int64(n)
	return n, last, flow.End
}

func (c *Conn) cutByFault(e End) {
	c.proxy.mu.Lock()
	defer c.proxy.mu.Unlock()
	if !c.ended() {
		c.proxy.cuts.Add(1)
	}
	c.cut(e)
}

// wait lets the time pass that a slow network takes.
func (c *Conn) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-time.After(d):
	case <-c.done:
	}
}
