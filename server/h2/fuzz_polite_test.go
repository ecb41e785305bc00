//go:build linux && !386 && !s390x

package h2

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// polite is a client that keeps to the rules, and judges whether the server does.
type polite struct {
	t     testing.TB
	c     *client
	out   *http2.Framer // to unsent
	ended chan struct{} // closed when nothing more is read

	mu      sync.Mutex
	changed *sync.Cond
	unsent  bytes.Buffer
	streams map[uint32]*politeStream
	open    []*politeStream
	nextID  uint32
	initial int // of a new stream
	granted int // bytes of answers, of all streams
	got     int
	room    int // bytes of bodies that the server takes
	pings   int
	pongs   int
	err     error // of the connection
}

type politeStream struct {
	id       uint32
	kind     string
	want     string // the answer; without the body of an echo
	body     strings.Builder
	got      strings.Builder
	initial  int // the largest that it has had
	granted  int // beyond that
	room     int // bytes of its body that the server takes
	sentEnd  bool
	begun    bool
	finished bool // the server has ended it
	reset    bool // by the client
	deadline int  // the ping after whose answer a reset stream is silent; 0 before that
}

func newPolite(t testing.TB, c *client) *polite {
	p := &polite{
		t: t, c: c, ended: make(chan struct{}), streams: make(map[uint32]*politeStream), nextID: 1,
		initial: initialWindow, granted: initialWindow, room: initialWindow,
	}
	p.changed = sync.NewCond(&p.mu)
	p.out = http2.NewFramer(&p.unsent, nil)
	return p
}

// politeFrames returns what such a client sends without waiting for anything.
func politeFrames(program []byte) []byte {
	c := &client{}
	c.hpack = hpack.NewEncoder(&c.block)
	p := newPolite(nil, c)
	_ = p.out.WriteSettings()
	for ; len(program) >= 3; program = program[3:] {
		if op := program[0] % streamOps; op != opFlush && op != opSync {
			p.step(op, int(program[1]), int(program[2]))
		}
	}
	return p.unsent.Bytes()
}

func (p *polite) must(err error) {
	if err != nil {
		p.t.Error(err)
	}
}

// flush sends what was written, with a cut at a place.
func (p *polite) flush(cut int) {
	b := bytes.Clone(p.unsent.Bytes())
	p.unsent.Reset()
	p.mu.Unlock() // the server may have to be read before it reads on
	defer p.mu.Lock()
	cut = min(cut, len(b))
	_, _ = p.c.conn.Write(b[:cut]) // what fails is found by the reader
	_, _ = p.c.conn.Write(b[cut:])
}

// sync waits until the server has handled everything.
func (p *polite) sync() {
	p.pings++
	p.must(p.out.WritePing(false, [8]byte{'s', 'y', 'n', 'c'}))
	for _, one := range p.streams {
		if one.reset && one.deadline == 0 {
			one.deadline = p.pings
		}
	}
	p.flush(0)
	for p.pongs < p.pings && p.err == nil {
		p.changed.Wait()
	}
}

// pick returns a stream that is not over for the client, or nil.
func (p *polite) pick(n int) *politeStream {
	live := p.open[:0]
	for _, one := range p.open {
		if !one.reset && !one.finished {
			live = append(live, one)
		}
	}
	if p.open = live; len(live) == 0 {
		return nil
	}
	return live[n%len(live)]
}

// ask sends a request, with its head in as many frames as style has it.
func (p *polite) ask(kind string, n int, end bool, style int) {
	if len(p.open) >= 100 {
		return
	}
	one := &politeStream{id: p.nextID, kind: kind, initial: p.initial, room: streamWindow, sentEnd: end}
	p.nextID += 2
	path := fmt.Sprintf("/%s/%d", kind, one.id)
	one.want = textOf(path, n)
	method := "GET"
	if !end {
		method = "POST"
	}
	fields := []string{":method", method, ":scheme", "http", ":authority", "rejoin", ":path", fmt.Sprintf("%s?%d", path, n)}
	for i := range style % 7 { // they fill the table, and are in it the next time
		fields = append(fields, fmt.Sprintf("x-%d", (style+i)%20), strings.Repeat("v", style*i%1500))
	}
	if kind == "slow" {
		fields = append(fields, "trailer", "checksum")
	}
	block := p.c.encode(fields...)
	head := http2.HeadersFrameParam{StreamID: one.id, EndStream: end, BlockFragment: block, EndHeaders: true}
	if style%3 == 1 {
		head.PadLength = uint8(style)
		head.Priority = http2.PriorityParam{StreamDep: uint32(style) * 2, Weight: uint8(n)}
	}
	part := 1 + len(block)*(1+style%5)/7
	if part < len(block) {
		head.BlockFragment, head.EndHeaders = block[:part], false
	}
	p.must(p.out.WriteHeaders(head))
	for rest := block[min(part, len(block)):]; len(rest) > 0; {
		piece := rest[:min(part, len(rest))]
		rest = rest[len(piece):]
		p.must(p.out.WriteContinuation(one.id, len(rest) == 0, piece))
	}
	p.streams[one.id] = one
	p.open = append(p.open, one)
}

func (p *polite) data(one *politeStream, n, style int) {
	padding := 0
	if style%2 == 1 {
		padding = style
	}
	n = min(n, one.room-padding-1, p.room-padding-1, frameBytes-padding-1)
	if one.sentEnd || n < 0 {
		return
	}
	text := textOf(fmt.Sprint("the body of ", one.id), n)
	one.body.WriteString(text)
	size := n
	if padding > 0 {
		size += padding + 1
		p.must(p.out.WriteDataPadded(one.id, false, []byte(text), make([]byte, padding)))
	} else {
		p.must(p.out.WriteData(one.id, false, []byte(text)))
	}
	one.room, p.room = one.room-size, p.room-size
}

func (p *polite) end(one *politeStream, style int) {
	if one.sentEnd {
		return
	}
	one.sentEnd = true
	if style%2 == 0 {
		p.must(p.out.WriteData(one.id, true, nil))
		return
	}
	if one.kind == "slow" {
		one.body.WriteString("the sum")
	}
	p.must(p.out.WriteHeaders(http2.HeadersFrameParam{StreamID: one.id, BlockFragment: p.c.encode("checksum", "the sum"), EndStream: true, EndHeaders: true}))
}

func (p *polite) grant(one *politeStream, n int) {
	one.granted += n
	p.must(p.out.WriteWindowUpdate(one.id, uint32(n)))
}

func (p *polite) grantConn(n int) {
	p.granted += n
	p.must(p.out.WriteWindowUpdate(0, uint32(n)))
}

// finish grants all that is needed and demands every answer.
func (p *polite) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.grantConn(1 << 28)
	for one := range p.live {
		p.end(one, int(one.id/2))
		p.grant(one, 1<<24)
	}
	p.flush(3)
	for {
		var waits *politeStream
		for one := range p.live {
			waits = one
		}
		if waits == nil || p.err != nil {
			break
		}
		p.changed.Wait()
	}
	p.sync()
	if p.err != nil {
		for one := range p.live {
			p.t.Errorf("%s %d: %d bytes of %d, granted %d and %d, its end was sent: %t", one.kind, one.id, one.got.Len(), len(one.want), one.initial, one.granted, one.sentEnd)
		}
		p.t.Fatalf("the connection has ended: %v", p.err)
	}
}

func (p *polite) live(yield func(*politeStream) bool) {
	for _, one := range p.streams {
		if !one.reset && !one.finished && !yield(one) {
			return
		}
	}
}

// read judges all frames of the server.
func (p *polite) read() {
	p.c.SetMaxReadFrameSize(frameBytes)
	p.c.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		f, err := p.c.ReadFrame()
		p.mu.Lock()
		if err == nil {
			err = p.judge(f)
		}
		if p.err = err; err != nil {
			p.changed.Broadcast()
			p.mu.Unlock()
			return
		}
		p.changed.Broadcast()
		p.mu.Unlock()
	}
}

func (p *polite) judge(f http2.Frame) error {
	id := f.Header().StreamID
	one := p.streams[id]
	switch f := f.(type) {
	case *http2.GoAwayFrame:
		return fmt.Errorf("%v with %v", f, f.ErrCode)
	case *http2.PingFrame:
		if f.IsAck() && string(f.Data[:4]) == "sync" {
			p.pongs++
		}
		return nil
	case *http2.SettingsFrame:
		return nil
	case *http2.WindowUpdateFrame:
		if id == 0 {
			p.room += int(f.Increment)
		} else if one != nil {
			one.room += int(f.Increment)
		}
		return nil
	}
	switch {
	case one == nil:
		return fmt.Errorf("%v, of no request", f)
	case one.finished && !one.endsByReset(f):
		return fmt.Errorf("%v, after the end of %s", f, one.kind)
	case one.deadline > 0 && p.pongs >= one.deadline:
		return fmt.Errorf("%v, after the client's reset was handled", f)
	}
	return p.judgeAnswer(one, f)
}

// endsByReset reports whether f is the reset that may follow an answer that came before
// the end of the request.
func (one *politeStream) endsByReset(f http2.Frame) bool {
	_, reset := f.(*http2.RSTStreamFrame)
	return reset && one.kind == "deaf"
}

func (p *polite) judgeAnswer(one *politeStream, f http2.Frame) error {
	switch f := f.(type) {
	case *http2.MetaHeadersFrame:
		if one.begun || f.PseudoValue("status") != "200" {
			return fmt.Errorf("%v, in answer to %s", f, one.kind)
		}
		one.begun = true
	case *http2.DataFrame:
		one.got.Write(f.Data())
		p.got += int(f.Length)
		switch {
		case !one.begun:
			return fmt.Errorf("%v, before the head", f)
		case one.got.Len() > one.initial+one.granted:
			return fmt.Errorf("stream %d: %d bytes in a window of %d and %d", one.id, one.got.Len(), one.initial, one.granted)
		case p.got > p.granted:
			return fmt.Errorf("%d bytes in the connection's window of %d", p.got, p.granted)
		case !strings.HasPrefix(one.answer(), one.got.String()):
			return fmt.Errorf("stream %d, %s: wrong bytes up to %d", one.id, one.kind, one.got.Len())
		}
	case *http2.RSTStreamFrame:
		if !one.finished && one.kind != "panic" {
			return fmt.Errorf("%v of %s, after %d bytes of %d", f, one.kind, one.got.Len(), len(one.answer()))
		}
		one.finished = true
	}
	if (f.Header().Type == http2.FrameData || f.Header().Type == http2.FrameHeaders) && f.Header().Flags.Has(http2.FlagDataEndStream) {
		one.finished = true
		if one.kind == "panic" || one.got.String() != one.answer() {
			return fmt.Errorf("stream %d, %s: it ended after %d bytes, want %d", one.id, one.kind, one.got.Len(), len(one.answer()))
		}
	}
	return nil
}

// answer returns what the server has to answer, as far as it is known.
func (one *politeStream) answer() string {
	if one.kind == "echo" || one.kind == "slow" {
		return one.body.String()
	}
	return one.want
}
