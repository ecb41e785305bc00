//go:build linux && !386 && !s390x

package h2

//lint:file-ignore SA1019 http.Server has an older copy of this server, which takes more.

import (
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// answerHead answers with what a handler sees of a request's head.
func answerHead(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %q %q %q %d\n", r.Method, r.RequestURI, r.URL, r.Host, r.ContentLength)
	for _, name := range slices.Sorted(maps.Keys(r.Header)) {
		if name == "Expect" || name == "Trailer" {
			continue // they are about a body, and stay if there is none
		}
		fmt.Fprintf(w, "%s: %q\n", name, r.Header[name])
	}
}

// FuzzHeads sends a head that is made of fields, or of any bytes, and then another one, on
// the same connection. A handler must see both as over net/http, whose server is the
// oracle, or the head must be refused with the same error.
func FuzzHeads(f *testing.F) {
	const get = ":method GET\n:scheme http\n:authority rejoin\n:path /\n"
	for _, fields := range []string{
		get, get + "x-some value\nx-some other\ncookie a=1\ncookie b=2\nte trailers\nexpect 100-continue\ntrailer checksum, date\n",
		get + "host other\n", ":method GET\n:scheme http\n:path /?a=%20b\nhost rejoin\n", ":method OPTIONS\n:scheme http\n:path *\n",
		":method CONNECT\n:authority rejoin\n", get + ":path /\n", get + "x y\n:path /\n", get + ":other x\n", ":scheme http\n:path /\n",
		get + "Upper case\n", get + "connection close\n", get + "te gzip\n", get + "content-length 5\n", get + "content-length x\n", get + " empty\n",
		get + "x-bad \x00\n", get + "x-long " + strings.Repeat("0", 5000) + "\n", ":method \n:scheme http\n:path /\n", ":method GET\n:scheme http\n:path\n",
	} {
		f.Add([]byte(fields), []byte(nil), uint16(0), true)
		f.Add([]byte(fields), []byte(nil), uint16(7), false)
	}
	f.Add([]byte(get), []byte{0x20}, uint16(1), true)                               // a table size behind a field
	f.Add([]byte(nil), []byte{0x3f, 0xe1, 0x1f, 0x82, 0x86, 0x84}, uint16(2), true) // the same, where it may be
	f.Add([]byte(nil), []byte{0x82, 0x86, 0x84, 0xbe}, uint16(0), true)             // an index that is not in the table
	f.Add([]byte(nil), []byte{0x82, 0x86, 0x84, 0x40, 0x83, 0xff}, uint16(0), true)
	f.Add([]byte(get), []byte{0x7f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80}, uint16(0), true)
	f.Add([]byte(":00"), []byte{0x79, 0}, uint16(0), true) // the next head has a Transfer-Encoding out of the table
	w := newWorld(f, answerHead)
	oracle := &http2.Server{}
	config := &http.Server{MaxHeaderBytes: 64 << 10, ErrorLog: log.New(io.Discard, "", 0)}
	f.Fuzz(func(t *testing.T, fields, raw []byte, cut uint16, end bool) {
		w.t = t
		ours := w.dial()
		got := askHeads(t, ours.conn, fields, raw, int(cut), end)
		ours.conn.Close()
		conn, theirs := net.Pipe()
		go oracle.ServeConn(theirs, &http2.ServeConnOpts{Handler: http.HandlerFunc(answerHead), BaseConfig: config})
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		want := askHeads(t, conn, fields, raw, int(cut), end)
		conn.Close()
		if !agree(got, want) {
			t.Errorf("%q and %x: the answers are\n%s\nwhile net/http has\n%s", fields, raw, strings.Join(got[:], "\n"), strings.Join(want[:], "\n"))
		}
	})
}

// askHeads returns what became of both requests.
func askHeads(t *testing.T, conn net.Conn, fields, raw []byte, cut int, end bool) (outcomes [2]string) {
	c := &client{Framer: http2.NewFramer(conn, conn), t: t}
	c.hpack = hpack.NewEncoder(&c.block)
	var pairs []string
	for line := range strings.Lines(string(fields)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		pairs = append(pairs, name, value)
	}
	first := append(c.encode(append(pairs, "x-known", "both tables have it")...), raw...)
	second := c.encode(":method", "GET", ":scheme", "http", ":path", "/second", "x-known", "both tables have it")
	if len(first) > frameBytes || len(second) > frameBytes {
		return outcomes
	}
	go func() {
		_, _ = io.WriteString(conn, http2.ClientPreface) // the reader finds what fails
		_ = c.WriteSettings()
		_ = c.WriteSettingsAck()
		for i, block := range [][]byte{first, second} {
			piece := block
			if cut > 0 {
				piece = block[:min(cut, len(block))]
			}
			id := uint32(2*i + 1)
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: piece, EndStream: end || i > 0, EndHeaders: len(piece) == len(block)})
			if len(piece) < len(block) {
				_ = c.WriteContinuation(id, true, block[len(piece):])
			}
			if !end && i == 0 {
				_ = c.WriteData(id, true, nil)
			}
		}
	}()
	return readOutcomes(c)
}

// readOutcomes reads until both requests are over, or the connection is.
func readOutcomes(c *client) (outcomes [2]string) {
	for over := [2]bool{}; !over[0] || !over[1]; {
		f, err := c.ReadFrame()
		if err != nil {
			outcomes[1] += fmt.Sprint(" ", err)
			return outcomes
		}
		if away, ok := f.(*http2.GoAwayFrame); ok && away.ErrCode != http2.ErrCodeNo {
			for i := range over {
				if !over[i] {
					outcomes[i] = fmt.Sprint("GOAWAY ", away.ErrCode)
				}
			}
			return outcomes
		}
		i := (f.Header().StreamID - 1) / 2
		if f.Header().StreamID == 0 || over[i] {
			continue
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			over[i] = f.StreamEnded()
		case *http2.DataFrame:
			outcomes[i] += string(f.Data())
			over[i] = f.StreamEnded()
		case *http2.RSTStreamFrame:
			outcomes[i] = fmt.Sprint("RST_STREAM ", f.ErrCode)
			over[i] = true
		}
	}
	return outcomes
}

// agree reports whether net/http does the same. After a refused head, it may end the
// connection, or keep it.
func agree(ours, theirs [2]string) bool {
	switch {
	case !refused(ours[0]):
		return ours == theirs || strings.HasPrefix(theirs[0], `request header "TE"`) // twice the same is once
	case strings.HasPrefix(theirs[0], "GOAWAY COMPRESSION"): // the tables differ from here on
		return strings.HasPrefix(ours[0], "GOAWAY")
	case refused(theirs[0]):
		return ours[1] == theirs[1] || refused(ours[1]) && refused(theirs[1]) ||
			strings.HasPrefix(ours[1], "GOAWAY") || strings.HasPrefix(theirs[1], "GOAWAY")
	case strings.HasPrefix(theirs[0], "CONNECT "), strings.Contains(theirs[0], "\nContent-Length: "), strings.Contains(theirs[0], "\nTe: "):
		return true // net/http takes some lengths and TE that it should not
	}
	_, path, _ := strings.Cut(theirs[0], " ") // only OPTIONS is about no path
	return strings.HasPrefix(path, `"*"`) && !strings.HasPrefix(theirs[0], "OPTIONS ")
}

func refused(outcome string) bool {
	for _, begin := range []string{"RST_STREAM PROTOCOL", "GOAWAY ", "request header "} {
		if strings.HasPrefix(outcome, begin) {
			return true
		}
	}
	return false
}
