//go:build linux && !386 && !s390x

package h2

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// fuzzHandler answers in every way that there is.
func fuzzHandler(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.Count(r.URL.Path, "/") > 1:
		serveText(w, r)
	case r.URL.Path == "/stream":
		st := StreamOf(r)
		s := newScript(st)
		for _, piece := range []string{"a", strings.Repeat("b", 20_000), strings.Repeat("c", 60_000)} {
			s.pieces <- piece
		}
		s.ends.Store(len(r.URL.RawQuery) > 0)
		_ = st.Take(w.Header(), []byte("open"), s)
	case r.URL.Path == "/panic":
		_, _ = io.WriteString(w, "some")
		panic(http.ErrAbortHandler)
	case r.Method == http.MethodPost:
		_, _ = io.Copy(w, r.Body)
	default:
		_, _ = io.WriteString(w, strings.Repeat("x", 30_000))
	}
}

// FuzzConn sends frames of all kinds in any order. The server must answer with frames
// that are in order themselves, and end the connection when its client has gone.
func FuzzConn(f *testing.F) {
	seedConversations(f)
	w := newWorld(f, fuzzHandler)
	f.Fuzz(func(t *testing.T, frames []byte) {
		w.t = t
		frames = wholeFrames(frames)
		c := w.dial()
		var writing sync.WaitGroup
		writing.Go(func() {
			_, _ = io.WriteString(c.conn, http2.ClientPreface)
			writeWithPauses(c.conn, &w.ahead, frames)
			_, _ = c.conn.Write(appendPing(nil, false, [8]byte{'e', 'n', 'd'}))
		})
		checkAnswers(t, c)
		c.conn.Close()
		writing.Wait() // the frames belong to the caller
	})
}

// seedConversations adds whole conversations.
func seedConversations(f *testing.F) {
	seed := func(frames func(fr *http2.Framer, head func(method, path string) []byte)) {
		var out, block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		frames(http2.NewFramer(&out, nil), func(method, path string) []byte {
			block.Reset()
			for _, field := range [][2]string{{":method", method}, {":scheme", "http"}, {":authority", "rejoin"}, {":path", path}} {
				_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
			}
			return bytes.Clone(block.Bytes())
		})
		f.Add(out.Bytes())
	}
	for _, path := range []string{"/stream", "/stream?end", "/panic", "/"} {
		seed(func(fr *http2.Framer, head func(method, path string) []byte) {
			_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10})
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head("GET", path), EndStream: true, EndHeaders: true})
			_ = fr.WriteWindowUpdate(1, 50_000)
			_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 3})
			_ = fr.WritePriority(1, http2.PriorityParam{StreamDep: 3})
			_ = fr.WriteRSTStream(1, http2.ErrCodeCancel)
			_ = fr.WritePing(false, [8]byte{1})
		})
	}
	seed(func(fr *http2.Framer, head func(method, path string) []byte) { // a stalled stream, and a silent client
		_ = fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		for id := range uint32(5) {
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 2*id + 1, BlockFragment: head("GET", "/stream"), EndStream: true, EndHeaders: true})
			_ = fr.WriteRawFrame(pauseFrame, 0, 0, make([]byte, id))
		}
		_ = fr.WriteRawFrame(pauseFrame, 0, 0, make([]byte, 21))
		_ = fr.WriteRawFrame(pauseFrame, 0, 0, make([]byte, 41))
	})
	seed(func(fr *http2.Framer, head func(method, path string) []byte) {
		_ = fr.WriteSettings()
		block := head("POST", "/")
		_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:3]})
		_ = fr.WriteContinuation(1, true, block[3:])
		_ = fr.WriteDataPadded(1, false, []byte("some"), make([]byte, 9))
		_ = fr.WriteData(1, true, []byte("more"))
		_ = fr.WriteGoAway(0, http2.ErrCodeNo, nil)
	})
	for seed := range byte(6) {
		program := make([]byte, 3*maxOps)
		for i := range program {
			program[i] = byte(i*i)*(2*seed+1) ^ byte(i/7)
		}
		f.Add(politeFrames(program[:len(program)/(1<<seed)]))
	}
}

// pauseFrame is the type of a frame that is not sent: the clock goes on by as many
// seconds as the frame has bytes.
const pauseFrame = 0xfe

func writeWithPauses(conn io.Writer, clock *atomic.Int64, frames []byte) {
	begin := 0
	for n := 0; n < len(frames); {
		end := n + frameHead + (int(frames[n])<<16 | int(frames[n+1])<<8 | int(frames[n+2]))
		if frames[n+3] == pauseFrame {
			_, _ = conn.Write(frames[begin:n]) // the reader finds what fails
			clock.Add(int64(end-n-frameHead) * int64(time.Second))
			begin = end
		}
		n = end
	}
	_, _ = conn.Write(frames[begin:])
}

// wholeFrames returns b without a last frame that is not complete.
func wholeFrames(b []byte) []byte {
	for n := 0; ; {
		if len(b)-n < frameHead {
			return b[:n]
		}
		length := int(b[n])<<16 | int(b[n+1])<<8 | int(b[n+2])
		if length > len(b)-n-frameHead {
			return b[:n]
		}
		n += frameHead + length
	}
}

// checkAnswers reads up to the last PING, or to the end of the connection.
func checkAnswers(t *testing.T, c *client) {
	begun, ended := make(map[uint32]bool), make(map[uint32]bool)
	c.SetMaxReadFrameSize(frameBytes)
	decoder := hpack.NewDecoder(4096, nil)
	c.ReadMetaHeaders = decoder
	for {
		f, err := c.ReadFrame()
		if err != nil {
			if _, bad := errors.AsType[http2.ConnectionError](err); bad {
				t.Fatalf("the server has sent a frame that cannot be: %v", err)
			}
			if strings.Contains(err.Error(), "timeout") {
				t.Fatal("the server neither answers nor ends")
			}
			return
		}
		id := f.Header().StreamID
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if ended[id] {
				t.Fatalf("a head after the end of stream %d", id)
			}
			if status := f.PseudoValue("status"); status != "100" {
				begun[id] = true
			}
			ended[id] = f.StreamEnded()
		case *http2.DataFrame:
			if ended[id] || !begun[id] {
				t.Fatalf("data of stream %d, begun %t, ended %t", id, begun[id], ended[id])
			}
			ended[id] = f.StreamEnded()
		case *http2.RSTStreamFrame:
			ended[id] = true
		case *http2.PingFrame:
			if f.IsAck() && string(f.Data[:3]) == "end" {
				return
			}
		}
	}
}
