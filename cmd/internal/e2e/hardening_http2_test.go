package e2e

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// The types, flags and errors of HTTP/2 frames that the attacks need (RFC 9113).
const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameGoAway, frameContinuation = 0, 1, 3, 4, 6, 7, 9

	flagEndStream, flagAck, flagEndHeaders = 1, 1, 4

	noError, refusedStream, cancelled, enhanceYourCalm = 0, 7, 8, 11
)

// frames is an HTTP/2 connection that sends what no client library would.
type frames struct {
	conn net.Conn
	r    *bufio.Reader
}

type frame struct {
	kind, flags byte
	stream      uint32
	payload     []byte
}

// code returns the error of a frame that ends a stream or the connection.
func (f frame) code() uint32 {
	if f.kind == frameGoAway {
		return binary.BigEndian.Uint32(f.payload[4:])
	}
	return binary.BigEndian.Uint32(f.payload)
}

// speak begins HTTP/2.
func (s *target) speak() *frames {
	s.t.Helper()
	conn := s.dial("h2")
	f := &frames{conn, bufio.NewReader(conn)}
	if _, err := io.WriteString(f.conn, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		s.t.Fatal(err)
	}
	if err := f.send(frame{frameSettings, 0, 0, nil}); err != nil {
		s.t.Fatal(err)
	}
	return f
}

func (fr frame) append(dst []byte) []byte {
	dst = append(dst, byte(len(fr.payload)>>16), byte(len(fr.payload)>>8), byte(len(fr.payload)), fr.kind, fr.flags)
	return append(binary.BigEndian.AppendUint32(dst, fr.stream), fr.payload...)
}

func (f *frames) send(all ...frame) error {
	var out []byte
	for _, fr := range all {
		out = fr.append(out)
	}
	_, err := f.conn.Write(out)
	return err
}

// next returns the next frame. It acknowledges settings and answers pings, as
// whoever wants to keep a connection would.
func (f *frames) next() (frame, error) {
	head := make([]byte, 9)
	if _, err := io.ReadFull(f.r, head); err != nil {
		return frame{}, err
	}
	fr := frame{head[3], head[4], binary.BigEndian.Uint32(head[5:]) &^ (1 << 31), make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))}
	if _, err := io.ReadFull(f.r, fr.payload); err != nil {
		return frame{}, err
	}
	if (fr.kind == frameSettings || fr.kind == framePing) && fr.flags&flagAck == 0 {
		answer := frame{fr.kind, flagAck, 0, nil}
		if fr.kind == framePing {
			answer.payload = fr.payload
		}
		return fr, f.send(answer)
	}
	return fr, nil
}

// fields encodes a header list, literally and without an index (RFC 7541).
func fields(pairs ...string) (block []byte) {
	for i, text := range pairs {
		if i%2 == 0 {
			block = append(block, 0)
		}
		n := len(text)
		if n < 127 {
			block = append(block, byte(n))
		} else {
			block = append(block, 127)
			for n -= 127; n >= 128; n >>= 7 {
				block = append(block, byte(n)|128)
			}
			block = append(block, byte(n))
		}
		block = append(block, text...)
	}
	return block
}

func get(path string, more ...string) []byte {
	return fields(append([]string{":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", path}, more...)...)
}

func getFrame(stream uint32, path string) frame {
	return frame{frameHeaders, flagEndHeaders | flagEndStream, stream, get(path)}
}

// awaitSubscribers waits until the feed chat has so many.
func (s *target) awaitSubscribers(want int) {
	s.t.Helper()
	got := 0
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) { // until the server has noticed
		if got = s.subscribers(); got == want {
			return
		}
	}
	s.t.Fatalf("%d subscribers, want %d", got, want)
}

// subscribers returns how many the feed chat has.
func (s *target) subscribers() int {
	s.t.Helper()
	var info struct{ Subscribers int }
	resp, err := s.client.Get(s.url + "/v1/feeds/chat")
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&info); err != nil {
		s.t.Fatal(err)
	}
	return info.Subscribers
}

// TestRapidReset: a stream that is opened and reset at once costs the client
// nothing and the server a goroutine, until it has noticed. The number of those
// must stay bounded, and whoever else is there must be served.
func TestRapidReset(t *testing.T) {
	t.Parallel()
	s := attack(t, true)
	if _, err := publish(s.client, s.url, "chat", "x"); err != nil {
		t.Fatal(err)
	}
	before, most := s.goroutines(), 0
	f := s.speak()
	answers := make(chan frame, 1)
	go func() { // a client that did not read would be stopped by the buffers
		defer close(answers)
		for {
			fr, err := f.next()
			if err != nil {
				return
			}
			if fr.kind == frameGoAway {
				answers <- fr
				return
			}
		}
	}()
	for id := uint32(1); id < 40_000; id += 2 {
		if f.send(getFrame(id, "/v1/feeds/chat/events"), frame{frameReset, 0, id, []byte{0, 0, 0, cancelled}}) != nil {
			break
		}
		if id%1001 == 0 {
			most = max(most, s.goroutines())
			if _, err := publish(s.client, s.url, "chat", "x"); err != nil {
				t.Fatalf("others are no longer served: %v", err)
			}
		}
	}
	if most-before > 2000 {
		t.Errorf("%d goroutines more", most-before)
	}
	f.conn.Close()
	if fr, ended := <-answers; ended && fr.code() != enhanceYourCalm && fr.code() != noError {
		t.Errorf("the connection was ended with the error %d", fr.code())
	}
	s.awaitSubscribers(0)
}

// TestStreamsBeyondTheLimit: the limit has to be the server's, not the client's
// good will.
func TestStreamsBeyondTheLimit(t *testing.T) {
	t.Parallel()
	s := attack(t, true)
	if _, err := publish(s.client, s.url, "chat", "x"); err != nil {
		t.Fatal(err)
	}
	f := s.speak()
	const limit = 250
	for { // until both sides know the limit: before, what goes beyond it is only refused
		fr, err := f.next()
		if err != nil {
			t.Fatal(err)
		}
		if fr.kind == frameSettings && fr.flags&flagAck == 0 {
			break
		}
	}
	for i := range uint32(limit) {
		if err := f.send(getFrame(2*i+1, "/v1/feeds/chat/events")); err != nil {
			t.Fatal(err)
		}
	}
	s.awaitSubscribers(limit)
	if err := f.send(getFrame(2*limit+1, "/v1/feeds/chat/events")); err != nil {
		t.Fatal(err)
	}
	for {
		fr, err := f.next()
		if err != nil {
			t.Fatalf("one stream more was taken: %v", err)
		}
		if fr.kind == frameHeaders && fr.stream > 2*limit {
			t.Fatal("one stream more was answered")
		}
		if fr.kind == frameReset && fr.stream == 2*limit+1 || fr.kind == frameGoAway {
			break
		}
	}
	s.awaitSubscribers(limit)
}

// TestHugeHeaderLists: header lists are held in memory, whole, for as long as
// they grow.
func TestHugeHeaderLists(t *testing.T) {
	t.Parallel()
	s := attack(t, true)
	part := fields("a", strings.Repeat("x", 8<<10))
	f := s.speak()
	if err := f.send(frame{frameHeaders, flagEndStream, 1, get("/healthz")}); err != nil {
		t.Fatal(err)
	}
	sent := 0
	for ; sent < 1<<14; sent++ { // 128 MB
		if f.send(frame{frameContinuation, 0, 1, part}) != nil {
			break
		}
	}
	if sent > 1<<10 {
		t.Errorf("%d KB of headers were taken", sent*8)
	}
	f = s.speak()
	for i := range 16 {
		flags, kind, payload := byte(0), byte(frameContinuation), part
		switch i {
		case 0:
			flags, kind, payload = flagEndStream, frameHeaders, get("/healthz")
		case 15:
			flags = flagEndHeaders
		}
		if err := f.send(frame{kind, flags, 1, payload}); err != nil {
			break // it was refused before its end
		}
	}
	for {
		fr, err := f.next()
		if err != nil || fr.kind == frameGoAway || fr.kind == frameReset {
			break
		}
		if fr.kind == frameHeaders { // :status 431 is no entry of the static table, 200 is its eighth
			if fr.payload[0] == 0x88 {
				t.Error("a header list of 120 KB was taken")
			}
			break
		}
	}
	if resp, err := s.client.Get(s.url + "/healthz"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("others: %v, %v", resp, err)
	}
}
