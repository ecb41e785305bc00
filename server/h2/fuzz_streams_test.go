//go:build linux && !386 && !s390x

package h2

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
)

// FuzzStreams has a client that keeps to the rules do whatever it may, in any order: many
// requests at once, with bodies, trailers and heads in pieces, and windows that are opened,
// taken back and used up. Every answer must come whole and to the byte, no window may be
// exceeded, and the client must keep its connection.
func FuzzStreams(f *testing.F) {
	all := make([]byte, 0, 3*streamOps)
	for op := range byte(streamOps) {
		all = append(all, op, op*37, op*11)
	}
	f.Add(all)
	f.Add(bytes.Repeat([]byte{opGet, 0, 9}, 60))                                                         // many streams that wait for windows
	f.Add(append(bytes.Repeat([]byte{opPost, 1, 200}, 20), bytes.Repeat([]byte{opData, 7, 255}, 90)...)) // bodies at once
	f.Add([]byte{opInitial, 0, 0, opGet, 0, 3, opSync, 0, 0, opInitial, 255, 255, opSync, 0, 0, opInitial, 0, 1})
	f.Add([]byte{opPost, 4, 1, opData, 0, 255, opReset, 0, 0, opGet, 2, 2, opReset, 0, 0, opSync, 0, 0, opGet, 1, 1})
	f.Add(append([]byte{opPost, 2, 0}, bytes.Repeat([]byte{opData, 0, 255, opSync, 0, 0}, 40)...))
	w := newWorld(f, serveText)
	f.Fuzz(func(t *testing.T, program []byte) {
		w.t = t
		c := w.connect()
		p := newPolite(t, c)
		go p.read()
		p.run(program[:min(len(program), 3*maxOps)])
		p.finish()
		c.conn.Close()
		eventually(t, "all handlers and the connection have ended", func() bool {
			w.server.mu.Lock()
			defer w.server.mu.Unlock()
			return len(w.server.conns) == 0 && w.runs.Load() == 0
		})
		if held := w.held.Load(); held != 0 {
			t.Fatalf("%d bytes are still charged", held)
		}
	})
}

// textOf returns n bytes that tell where they belong.
func textOf(name string, n int) string {
	line := name + " has this text, and no other has it.\n"
	return strings.Repeat(line, n/len(line)+1)[:n]
}

// serveText serves the kinds of requests that [polite] makes: the first word of the path.
// The query is the number of bytes.
func serveText(w http.ResponseWriter, r *http.Request) {
	var n int
	_, _ = fmt.Sscan(r.URL.RawQuery, &n)
	text := textOf(r.URL.Path, min(max(n, 0), 1<<17))
	switch kind, _, _ := strings.Cut(r.URL.Path[1:], "/"); kind {
	case "stream":
		s := newScript(StreamOf(r))
		for rest := text; rest != ""; {
			piece := rest[:min(len(rest), 1+len(rest)/3)]
			s.pieces <- piece
			rest = rest[len(piece):]
		}
		s.ends.Store(true)
		_ = StreamOf(r).Take(w.Header(), nil, s)
	case "flushed":
		for rest := text; rest != ""; {
			piece := rest[:min(len(rest), 5000)]
			_, _ = io.WriteString(w, piece)
			_ = http.NewResponseController(w).Flush()
			rest = rest[len(piece):]
		}
	case "panic":
		_, _ = io.WriteString(w, text)
		panic(http.ErrAbortHandler)
	case "echo":
		_, _ = io.Copy(w, r.Body)
	case "slow":
		var body bytes.Buffer
		_, _ = io.CopyBuffer(&body, struct{ io.Reader }{r.Body}, make([]byte, 100))
		_, _ = w.Write(body.Bytes())
		_, _ = io.WriteString(w, r.Trailer.Get("Checksum"))
	default: // deaf and page: a body is not read
		_, _ = io.WriteString(w, text)
	}
}

var (
	getKinds  = []string{"stream", "flushed", "panic", "page"}
	postKinds = []string{"echo", "slow", "deaf", "echo", "slow"}
)

// What a polite client does. An operation has two bytes that tell more.
const (
	opGet = iota
	opPost
	opData
	opEnd
	opWindow
	opConnWindow
	opInitial
	opReset
	opPing
	opPriority
	opUnknown
	opFlush
	opSync
	opSettings
	streamOps

	// maxOps are so few that no client without bad intent has ever used its credit up.
	maxOps = 300
)

func (p *polite) run(program []byte) {
	for ; len(program) >= 3; program = program[3:] {
		p.step(program[0]%streamOps, int(program[1]), int(program[2]))
	}
}

func (p *polite) step(op byte, a, b int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	one := p.pick(a)
	switch {
	case op == opGet:
		p.ask(getKinds[a%len(getKinds)], b*b, true, a)
	case op == opPost:
		p.ask(postKinds[a%len(postKinds)], b, false, a)
	case op == opConnWindow:
		p.grantConn(1 + 64*b)
	case op == opInitial:
		p.initial = a*a + b
		for _, one := range p.streams {
			one.initial = max(one.initial, p.initial)
		}
		p.must(p.out.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(p.initial)}))
	case op == opSettings:
		p.must(p.out.WriteSettings(
			http2.Setting{ID: http2.SettingHeaderTableSize, Val: uint32(a * 100)},
			http2.Setting{ID: http2.SettingMaxFrameSize, Val: uint32(frameBytes + b)},
			http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(b)},
		))
	case op == opPing:
		p.must(p.out.WritePing(false, [8]byte{byte(a), byte(b)}))
	case op == opPriority:
		p.must(p.out.WritePriority(uint32(2*a+1), http2.PriorityParam{StreamDep: uint32(2*b + 2), Weight: byte(b)}))
	case op == opUnknown:
		p.must(p.out.WriteRawFrame(http2.FrameType(100+a%100), http2.Flags(b), uint32(a), make([]byte, b)))
	case op == opFlush:
		p.flush(a)
	case op == opSync:
		p.sync()
	case one == nil:
	case op == opData:
		p.data(one, b*b, a)
	case op == opEnd:
		p.end(one, a)
	case op == opWindow:
		p.grant(one, 1+b*b)
	case op == opReset:
		one.reset = true
		p.must(p.out.WriteRSTStream(one.id, http2.ErrCodeCancel))
	}
}
