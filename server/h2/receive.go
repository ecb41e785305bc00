package h2

import (
	"bytes"
	"errors"
	"io"
	"math"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/rejoin/rejoin/server/engine"
)

// A client has maxCredit, and earns creditRate a second up to that.
const (
	maxCredit  = 2000
	creditRate = 200
	smallWrite = 64 // less than that, when a window allows no more, earns nothing
)

// maxContinuations limits the CONTINUATION frames of a head.
const maxContinuations = 32

// parser parses the frames of any connection. Only a whole head leaves it as it was.
type parser struct {
	framer *http2.Framer
	input  bytes.Reader
	head   readHead
	emit   func(hpack.HeaderField) // adds a field to head
}

var parsers = sync.Pool{New: func() any {
	p := &parser{}
	p.framer = http2.NewFramer(io.Discard, &p.input)
	p.framer.SetMaxReadFrameSize(frameBytes)
	p.framer.SetReuseFrames()
	p.emit = p.head.add
	return p
}}

// Receive implements [engine.Receiver].
func (c *Conn) Receive(b []byte) error {
	if c.failure != nil {
		return nil // Next is about to end the connection
	}
	c.now = c.server.options.Now()
	c.heard = c.now
	if c.pingSent != 0 {
		c.pingSent = 0
		c.due = min(c.due, c.heard+quietTime)
	}
	if earned := (c.now - c.creditAt) * creditRate / time.Second; earned > 0 {
		c.earn(int(min(earned, maxCredit)))
		c.creditAt = c.now
	}
	if len(c.partial) > 0 {
		c.partial = append(c.partial, b...)
		b = c.partial
	}
	rest, err := c.parse(b)
	switch {
	case err != nil:
		c.failure, c.partial = err, nil
	case len(rest) == 0:
		c.partial = nil
	case len(c.partial) == 0 || len(rest) < len(b):
		c.partial = bytes.Clone(rest)
	default:
		c.partial = b
	}
	return nil
}

// parse handles the frames that are complete and returns the rest.
func (c *Conn) parse(b []byte) (rest []byte, err error) {
	if !c.prefaced {
		n := min(len(b), len(http2.ClientPreface))
		if string(b[:n]) != http2.ClientPreface[:n] {
			return nil, http2.ConnectionError(http2.ErrCodeProtocol)
		}
		if n < len(http2.ClientPreface) {
			return b, nil
		}
		b = b[n:]
		c.passPreface()
	}
	p := parsers.Get().(*parser)
	for {
		n, err := c.frameLength(b)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		p.input.Reset(b[:n])
		b = b[n:]
		frame, err := p.framer.ReadFrame()
		if err == nil {
			err = c.handle(p, frame)
		}
		if e, ok := errors.AsType[http2.StreamError](err); ok {
			err = c.reject(e)
		}
		if err != nil {
			return nil, err // and p, whose state is unknown, is not used again
		}
	}
	p.input.Reset(nil)
	clear(p.head.fields)
	p.head.pseudo = pseudoFields{}
	parsers.Put(p)
	return b, nil
}

// passPreface notes that the client's preface is complete.
func (c *Conn) passPreface() {
	c.prefaced = true
	c.due = min(c.due, c.now+c.server.options.IdleTimeout, c.now+quietTime)
}

// frameLength returns the length of the first frame in b, together with the frames that
// continue it, or 0 if it is not complete.
func (c *Conn) frameLength(b []byte) (int, error) {
	for n, continuations := 0, 0; ; continuations++ {
		if len(b)-n < frameHead {
			return 0, nil
		}
		head := b[n : n+frameHead]
		length := int(head[0])<<16 | int(head[1])<<8 | int(head[2])
		if length > frameBytes {
			return 0, http2.ConnectionError(http2.ErrCodeFrameSize)
		}
		kind, flags := http2.FrameType(head[3]), http2.Flags(head[4])
		if n > 0 && kind != http2.FrameContinuation {
			return n, nil // the parser finds what is wrong
		}
		if kind == http2.FrameContinuation && (continuations > maxContinuations || n > 2*c.server.options.HeadBytes) {
			return 0, http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
		}
		if n += frameHead + length; len(b) < n {
			return 0, nil
		}
		if kind != http2.FrameHeaders && kind != http2.FrameContinuation || flags.Has(http2.FlagHeadersEndHeaders) {
			return n, nil
		}
	}
}

// spend takes credit for what costs the client nothing.
func (c *Conn) spend(n int) error {
	if c.credit -= n; c.credit < 0 {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return nil
}

func (c *Conn) earn(n int) { c.credit = min(c.credit+n, maxCredit) }

// reject resets a stream because of an error of the client.
func (c *Conn) reject(e http2.StreamError) error {
	if st := c.streams[e.StreamID]; st != nil {
		c.close(st, engine.ErrClientGone)
	} else if e.StreamID > c.lastID && e.StreamID%2 == 1 {
		c.lastID = e.StreamID
		if !c.stopSent {
			c.served = e.StreamID
		}
	}
	c.push(appendReset(nil, e.StreamID, e.Code))
	return c.spend(1)
}

func (c *Conn) handle(p *parser, frame http2.Frame) error {
	if f, ok := frame.(*http2.SettingsFrame); !c.settled && (!ok || f.IsAck()) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.settled = true
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		head, err := p.readHead(c, f)
		if err != nil {
			return err
		}
		return c.handleHead(head)
	case *http2.DataFrame:
		return c.handleData(f)
	case *http2.SettingsFrame:
		return c.handleSettings(f)
	case *http2.WindowUpdateFrame:
		return c.handleWindow(f)
	case *http2.PingFrame:
		if f.IsAck() {
			return nil
		}
		c.push(appendPing(nil, true, f.Data))
	case *http2.RSTStreamFrame:
		if f.StreamID > c.lastID {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		if st := c.streams[f.StreamID]; st != nil {
			c.close(st, engine.ErrClientGone)
		}
	case *http2.PriorityFrame:
		if f.StreamDep == f.StreamID {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
	case *http2.GoAwayFrame:
		c.left = true
	case *http2.PushPromiseFrame, *http2.ContinuationFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return c.spend(1)
}

func (c *Conn) handleSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return c.spend(1)
	}
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		if s.ID == http2.SettingInitialWindowSize {
			return c.setInitialWindow(int32(s.Val))
		}
		return nil // no frame is larger, and no table used, than every client takes
	})
	c.push(appendHead(nil, 0, http2.FrameSettings, http2.FlagSettingsAck, 0))
	if err == nil {
		err = c.spend(1 + f.NumSettings()/10 + len(c.streams)/10)
	}
	return err
}

// setInitialWindow changes the windows of all streams (RFC 9113, section 6.9.2).
func (c *Conn) setInitialWindow(n int32) error {
	change := int64(n) - int64(c.initialWindow)
	c.initialWindow = n
	for _, st := range c.streams {
		window := int64(st.window) + change
		if window > maxWindow || window < math.MinInt32 {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.open(st, int32(window))
	}
	return nil
}

// open sets a stream's window.
func (c *Conn) open(st *Stream, window int32) {
	st.window = window
	if st.blocked != 0 && window > 0 {
		st.queue()
	}
}

func (c *Conn) handleWindow(f *http2.WindowUpdateFrame) error {
	if f.StreamID == 0 {
		if int64(c.window)+int64(f.Increment) > maxWindow {
			return http2.ConnectionError(http2.ErrCodeFlowControl)
		}
		c.window += int32(f.Increment)
		return c.spend(1)
	}
	st := c.streams[f.StreamID]
	switch {
	case st == nil && f.StreamID > c.lastID:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case st == nil:
	case int64(st.window)+int64(f.Increment) > maxWindow:
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	default:
		c.open(st, st.window+int32(f.Increment))
	}
	return c.spend(1)
}

func (c *Conn) handleData(f *http2.DataFrame) error {
	length := int32(f.Length)
	if f.StreamID > c.lastID {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if length > c.received {
		return http2.ConnectionError(http2.ErrCodeFlowControl)
	}
	c.received -= length
	st := c.streams[f.StreamID]
	if st == nil || st.clientEnded {
		c.giveWindow(length)
		if f.StreamID > c.served {
			return c.spend(1)
		}
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeStreamClosed}
	}
	body := st.body
	if length > body.credit {
		c.giveWindow(length)
		return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeFlowControl}
	}
	body.credit -= length
	data := f.Data()
	c.giveWindow(length - int32(len(data))) // of the padding
	c.giveStreamWindow(st, length-int32(len(data)))
	if body.announced >= 0 {
		body.announced -= int64(len(data))
		if body.announced < 0 || f.StreamEnded() && body.announced > 0 {
			c.giveWindow(int32(len(data)))
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
	}
	if len(data) > 0 && !body.add(data) {
		c.giveWindow(int32(len(data))) // the handler does not want it
	}
	if f.StreamEnded() {
		c.endBody(st)
	}
	if len(data) == 0 && !f.StreamEnded() {
		return c.spend(1)
	}
	c.earn(len(data) / 1024)
	return nil
}

// endBody notes that a request is complete.
func (c *Conn) endBody(st *Stream) {
	st.clientEnded = true
	if st.body != nil {
		st.body.end()
	}
}

// giveWindow lets the client send n bytes more on the connection.
func (c *Conn) giveWindow(n int32) {
	if c.refund += n; c.refund >= connWindow/4 {
		c.push(appendWindowUpdate(nil, 0, c.refund))
		c.received += c.refund
		c.refund = 0
	}
}

// giveStreamWindow lets the client send n bytes more of a body.
func (c *Conn) giveStreamWindow(st *Stream, n int32) {
	if st.closed || st.clientEnded {
		return
	}
	body := st.body
	if body.refund += n; body.refund >= streamWindow/4 {
		c.push(appendWindowUpdate(nil, st.id, body.refund))
		body.credit += body.refund
		body.refund = 0
	}
}
