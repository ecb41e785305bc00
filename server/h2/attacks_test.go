//go:build linux && !386 && !s390x

package h2

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

func answerHello(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") }

// TestFloods: a client that makes the server work for nothing is disconnected.
func TestFloods(t *testing.T) {
	const many = 20_000
	for name, flood := range map[string]func(c *client, i int){
		"rapid reset": func(c *client, _ int) {
			id := c.request("/", true)
			c.must(c.WriteRSTStream(id, http2.ErrCodeCancel))
		},
		"settings":       func(c *client, _ int) { c.must(c.WriteSettings()) },
		"acknowledged":   func(c *client, _ int) { c.must(c.WriteSettingsAck()) },
		"ping":           func(c *client, _ int) { c.must(c.WritePing(false, [8]byte{})) },
		"priority":       func(c *client, i int) { c.must(c.WritePriority(1, http2.PriorityParam{StreamDep: uint32(2*i + 3)})) },
		"window":         func(c *client, _ int) { c.must(c.WriteWindowUpdate(0, 1)) },
		"unknown frames": func(c *client, _ int) { c.must(c.WriteRawFrame(99, 0, 0, nil)) },
		"empty data": func(c *client, i int) {
			if i == 0 {
				c.request("/slow", false)
			}
			c.must(c.WriteData(1, false, nil))
		},
		"data of a closed stream": func(c *client, i int) {
			if i == 0 {
				c.must(c.WriteRSTStream(c.request("/slow", false), http2.ErrCodeCancel))
			}
			c.must(c.WriteData(1, false, []byte("x")))
		},
		"windows of a closed stream": func(c *client, i int) {
			if i == 0 {
				c.must(c.WriteRSTStream(c.request("/slow", false), http2.ErrCodeCancel))
			}
			c.must(c.WriteWindowUpdate(1, 1))
		},
		"beyond the limit": func(c *client, _ int) { c.request("/slow", false) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					<-r.Context().Done()
				}
			})
			c := w.connect()
			var out bytes.Buffer
			c.Framer = http2.NewFramer(&out, c.conn)
			go func() {
				for i := range many {
					if flood(c, i); out.Len() > 32<<10 || i == many-1 {
						if _, err := c.conn.Write(out.Bytes()); err != nil {
							return
						}
						out.Reset()
					}
				}
			}()
			reader := &client{Framer: http2.NewFramer(nil, c.conn), t: t, conn: c.conn}
			reader.wantGone(http2.ErrCodeEnhanceYourCalm)
		})
	}
}

// TestSmallFrames: small frames that carry something are no flood.
func TestSmallFrames(t *testing.T) {
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	})
	c := w.connect()
	id := c.request("/", false)
	const many = 3 * maxCredit
	for i := range many {
		c.must(c.WriteData(id, i == many-1, []byte("x")))
	}
	if got, want := c.body(id, 0), fmt.Sprint(many, nil); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestOneByteWindows: a client that grants a stream one byte at a time is disconnected.
func TestOneByteWindows(t *testing.T) {
	w := newWorld(t, answerHello)
	w.server.options.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 100<<10))
	})
	c := w.connect(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	id := c.request("/", true)
	go func() {
		for range 20_000 {
			if err := c.WriteWindowUpdate(id, 1); err != nil {
				return
			}
		}
	}()
	reader := &client{Framer: http2.NewFramer(nil, c.conn), t: t, conn: c.conn}
	reader.wantGone(http2.ErrCodeEnhanceYourCalm)
}

// TestContinuationFlood: a head that does not end, in small frames or in large ones, is
// not collected for ever.
func TestContinuationFlood(t *testing.T) {
	for _, size := range []int{0, 1, frameBytes} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			w := newWorld(t, answerHello)
			c := w.connect()
			block := c.encode(":method", "GET", ":scheme", "http", ":authority", "rejoin", ":path", "/")
			c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block}))
			go func() {
				for range 300_000 {
					if err := c.WriteContinuation(1, false, make([]byte, size)); err != nil {
						return
					}
				}
			}()
			reader := &client{Framer: http2.NewFramer(nil, c.conn), t: t, conn: c.conn}
			reader.wantGone(http2.ErrCodeEnhanceYourCalm)
		})
	}
}

// TestHeads: heads that are too large, also after their decompression, are refused
// and cost no other stream anything; the connection can decode the next one.
func TestHeads(t *testing.T) {
	w := newWorld(t, answerHello)
	c := w.connect()
	big := strings.Repeat("x", 4000) // in the table of both sides
	var bomb []string
	for range 2000 { // 8 MB of head in a few kilobytes
		bomb = append(bomb, "x", big)
	}
	block := c.encode(append([]string{":method", "GET", ":scheme", "http", ":authority", "rejoin", ":path", "/"}, bomb...)...)
	if len(block) > frameBytes {
		t.Fatalf("the bomb has %d bytes", len(block))
	}
	c.must(c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true}))
	c.nextID = 3
	c.wantReset(1, http2.ErrCodeNo)
	if got := c.body(c.request("/", true, "x", big), 0); got != "hello" {
		t.Errorf("got %q", got)
	}
}

// TestSilence: a client that says nothing, from any moment on, is disconnected, within
// 45 seconds.
func TestSilence(t *testing.T) {
	for name, begin := range map[string]func(w *world) *client{
		"no preface": func(w *world) *client { return w.dial() },
		"half of it": func(w *world) *client {
			c := w.dial()
			c.write(io.WriteString(c.conn, http2.ClientPreface[:9]))
			return c
		},
		"no settings":  func(w *world) *client { c := w.dial(); c.write(io.WriteString(c.conn, http2.ClientPreface)); return c },
		"no request":   func(w *world) *client { return w.connect() },
		"a stream":     func(w *world) *client { c := w.connect(); c.request("/stream", true); c.next(); return c },
		"half a frame": func(w *world) *client { c := w.connect(); c.write(c.conn.Write([]byte{0, 0, 8, 6, 0})); return c },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
				st := StreamOf(r)
				if err := st.Take(w.Header(), nil, newScript(st)); err != nil {
					t.Error(err)
				}
			})
			c := begin(w)
			time.Sleep(50 * time.Millisecond) // so that what it has sent was read
			for range 9 {
				w.ahead.Add(int64(5 * time.Second))
				time.Sleep(30 * time.Millisecond) // the server has pinged meanwhile
			}
			_ = c.conn.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := io.Copy(io.Discard, c.conn); err != nil {
				t.Errorf("the connection is still open: %v", err)
			}
		})
	}
}

// TestPing: a client that answers keeps its connection.
func TestPing(t *testing.T) {
	w := newWorld(t, answerHello)
	c := w.connect()
	for i := range 5 {
		time.Sleep(50 * time.Millisecond) // so that what it has sent was read
		w.ahead.Add(int64(21 * time.Second))
		for {
			f := c.next()
			if f == nil {
				t.Fatalf("the connection ended after %d pings", i)
			}
			if ping, ok := f.(*http2.PingFrame); ok {
				c.must(c.WritePing(true, ping.Data))
				break
			}
		}
	}
}
