package h2

import (
	"bytes"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestEncodeHead: a client reads back what a handler has set, of any length, and has
// nothing of it in its table.
func TestEncodeHead(t *testing.T) {
	for _, test := range []struct {
		status int
		header http.Header
		want   []string // besides the date
	}{
		{200, http.Header{"Content-Type": {"text/event-stream"}, "X-Accel-Buffering": {"no"}, "Connection": {"close"}},
			[]string{":status: 200", "content-type: text/event-stream", "x-accel-buffering: no"}},
		{404, nil, []string{":status: 404"}},
		{418, http.Header{"X-Own": {"a", "b\r\nc"}, "Set-Cookie": {""}}, []string{":status: 418", "set-cookie: ", "x-own: a", "x-own: b  c"}},
		{0, http.Header{"Trailer-Of-Mine": {"x"}}, []string{"trailer-of-mine: x"}},
		{100, nil, []string{":status: 100"}},
		{201, http.Header{"Location": {strings.Repeat("l", 126)}, "Link": {strings.Repeat("l", 127)}, "Etag": {strings.Repeat("e", 128)}, "Vary": {strings.Repeat("v", 40_000)}},
			[]string{":status: 201", "etag: " + strings.Repeat("e", 128), "link: " + strings.Repeat("l", 127), "location: " + strings.Repeat("l", 126), "vary: " + strings.Repeat("v", 40_000)}},
	} {
		framer := http2.NewFramer(nil, bytes.NewReader(encodeHead(7, test.status, test.header, true)))
		framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("%d: %v", test.status, err)
		}
		head := frame.(*http2.MetaHeadersFrame)
		var got []string
		dated := false
		for _, f := range head.Fields {
			if f.Name == "date" {
				dated = true
				continue
			}
			got = append(got, f.Name+": "+f.Value)
		}
		slices.Sort(got)
		if !slices.Equal(got, test.want) || head.StreamID != 7 || !head.StreamEnded() {
			t.Errorf("%d: got %.300q on stream %d", test.status, got, head.StreamID)
		}
		if dated != (test.status >= 200) {
			t.Errorf("%d: it has a date: %t", test.status, dated)
		}
	}
}
