package h2

import (
	"time"

	"golang.org/x/net/http2"

	"github.com/rejoin/rejoin/server/engine"
)

// tick looks at everything that has a time.
func (c *Conn) tick() {
	o := &c.server.options
	c.due = c.now + century
	switch {
	case !c.prefaced:
		if c.now-c.idle >= prefaceTime {
			c.failure = errSilent
		}
		c.due = c.idle + prefaceTime
		return
	case len(c.streams) == 0:
		if c.now-c.idle >= o.IdleTimeout {
			c.failure = errIdle
		}
		c.due = c.idle + o.IdleTimeout
	}
	switch quiet := c.now - c.heard; {
	case c.pingSent != 0 && c.heard > c.pingSent:
		c.pingSent = 0
		c.due = min(c.due, c.heard+quietTime)
	case c.pingSent != 0:
		if c.now-c.pingSent >= pingTimeout {
			c.failure = errSilent
		}
		c.due = min(c.due, c.pingSent+pingTimeout)
	case quiet >= quietTime:
		c.pingSent = c.now
		c.push(appendPing(nil, false, [8]byte{}))
		c.due = min(c.due, c.now+pingTimeout)
	default:
		c.due = min(c.due, c.heard+quietTime)
	}
	for _, st := range c.streams {
		c.tickStream(st)
	}
}

func (c *Conn) tickStream(st *Stream) {
	if st.source == nil {
		return
	}
	if st.blocked == 0 && st.queued && c.window <= 0 {
		st.blocked = max(c.now, 1)
		st.wait()
	}
	if st.blocked != 0 {
		why := st.source.Over(c.now)
		if why == nil && c.now-st.blocked >= c.server.options.WriteTimeout {
			why = engine.ErrStalled
		}
		if why != nil {
			c.push(appendReset(nil, st.id, http2.ErrCodeInternal))
			c.close(st, why)
			return
		}
		c.due = min(c.due, c.now+blockedCheck)
		return
	}
	if due := st.source.Due(); due <= c.now {
		st.queue()
		c.due = min(c.due, c.now+blockedCheck)
	} else {
		c.due = min(c.due, due)
	}
}

// Over implements [engine.Stream]. It is called while the socket is full.
func (c *Conn) Over(now time.Duration) error {
	c.now = now
	c.mu.Lock()
	full := len(c.control) > maxControl
	c.mu.Unlock()
	if full {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	for _, st := range c.ready {
		if st.source != nil {
			st.wait()
		}
	}
	for _, st := range c.streams {
		if st.source != nil {
			if why := st.source.Over(now); why != nil {
				c.push(appendReset(nil, st.id, http2.ErrCodeInternal))
				c.close(st, why)
			}
		}
	}
	return nil
}
