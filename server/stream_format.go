package server

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/envelope"
	"github.com/rejoin/rejoin/server/sse"
)

// controlEvent is an event of the server itself.
type controlEvent struct {
	kind   string // begins with "feed."
	feed   string // empty if it concerns all feeds
	data   any
	cursor string        // the subscription's cursor after the event; empty to leave it unchanged
	retry  time.Duration // the time after which to reconnect; 0 for none
}

// streamFormat is the format of a stream on the wire.
type streamFormat interface {
	contentType() []string // the header's values, which must not be changed
	// events returns the encoding of a feed's events. In a stream of many feeds,
	// appendID must follow each event that has an id.
	events(r subscribeRequest) feed.Encoding
	appendID(dst []byte, cursor []byte) []byte
	// ephemeral returns the encoding of ephemeral events in a stream of many feeds.
	// appendID does not follow them.
	ephemeral(inChunks bool) feed.Encoding
	appendControl(dst []byte, c controlEvent) []byte
	keepAlive() []byte
}

// sseFormat is Server-Sent Events.
type sseFormat struct{}

func (sseFormat) contentType() []string { return eventStreamType }

var eventStreamType = []string{"text/event-stream; charset=utf-8"}

func (sseFormat) events(r subscribeRequest) feed.Encoding {
	switch {
	case r.many:
		return sse.Unfinished
	case r.envelope:
		return sse.Envelopes
	}
	return sse.Blocks
}

func (sseFormat) appendID(dst []byte, cursor []byte) []byte { return sse.AppendEnd(dst, cursor) }

func (sseFormat) ephemeral(inChunks bool) feed.Encoding {
	if inChunks {
		return chunkedEnvelopes
	}
	return sse.Envelopes
}

func (sseFormat) appendControl(dst []byte, c controlEvent) []byte {
	return sse.Control{Type: c.kind, Data: string(marshal(c.data)), ID: c.cursor, Retry: c.retry}.Append(dst)
}

func (sseFormat) keepAlive() []byte { return keepAliveComment }

var keepAliveComment = []byte(sse.KeepAlive)

// ndjsonFormat is lines of JSON: each is an envelope or a control event.
type ndjsonFormat struct{}

func (ndjsonFormat) contentType() []string { return lineStreamType }

var lineStreamType = []string{"application/x-ndjson; charset=utf-8"}

func (ndjsonFormat) events(subscribeRequest) feed.Encoding { return envelopeLines{} }

func (ndjsonFormat) appendID(dst []byte, _ []byte) []byte { return dst }

func (ndjsonFormat) ephemeral(inChunks bool) feed.Encoding {
	if inChunks {
		return chunkedLines
	}
	return envelopeLines{}
}

func (ndjsonFormat) appendControl(dst []byte, c controlEvent) []byte {
	return append(append(dst, marshal(struct {
		Feed   string `json:"feed,omitempty"`
		Type   string `json:"type"`
		Cursor string `json:"cursor,omitempty"`
		Data   any    `json:"data"`
	}{c.feed, c.kind, c.cursor, c.data})...), '\n')
}

func (ndjsonFormat) keepAlive() []byte { return emptyLine }

var emptyLine = []byte("\n")

// envelopeLines encodes events as lines of JSON.
type envelopeLines struct{}

func (envelopeLines) Encode(dst []byte, e *feed.Event) []byte {
	return append(envelope.Append(dst, e), '\n')
}

// encodedJSON is data of a control event that is JSON already.
type encodedJSON []byte

// MarshalJSON implements [json.Marshaler].
func (b encodedJSON) MarshalJSON() ([]byte, error) { return b, nil }

// marshal encodes one of this package's own structs.
func marshal(v any) []byte {
	if encoded, ok := v.(encodedJSON); ok {
		return encoded
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return text
}

func writeStreamHead(w http.ResponseWriter, r *http.Request, f streamFormat) {
	setStreamHead(w.Header(), r, f)
	w.WriteHeader(http.StatusOK)
}

func setStreamHead(h http.Header, r *http.Request, f streamFormat) {
	if location := streamLocation(r); strings.HasPrefix(r.URL.Path, "/v1/feeds/") && len(location) <= locationBytes {
		h["Location"] = []string{location}
	}
	h["Content-Type"] = f.contentType()
	h["Cache-Control"] = noStore
	h["X-Accel-Buffering"] = noBuffering // nginx would hold back even the head
	h["X-Content-Type-Options"] = noSniffing
}

// locationBytes limits the Location of a stream, which repeats the query. Many proxies
// fail at a head of more than 4 KiB.
const locationBytes = 3000

// streamLocation returns where the client finds the stream again: the path and the query
// of its request, without the cursor, of which it has a newer one, and without the token,
// which no answer repeats. Some clients reconnect only to a Location.
func streamLocation(r *http.Request) string { return location(r, inLocation) }

// askedLocation returns the path and the query of a request without the token, and without
// anything that says where a stream or a page begins: all requests for the same feeds have
// the same.
func askedLocation(r *http.Request) string {
	return location(r, func(part string) bool {
		name, _, _ := strings.Cut(part, "=")
		name, err := url.QueryUnescape(name)
		return err == nil && inLocation(part) && !slices.Contains(startParams, name)
	})
}

// startParams are the parameters besides the cursor that say where a stream or a page
// begins.
var startParams = []string{"from", "startIndex", "after"}

// location returns the path and the query of r as its client sees them, with the parts of
// the query for which keep reports true.
func location(r *http.Request, keep func(part string) bool) string {
	u, path := r.URL, basePathOf(r)+r.URL.EscapedPath()
	if u.RawQuery == "" {
		return path
	}
	kept := make([]byte, 0, len(path)+len("?")+len(u.RawQuery))
	kept = append(kept, path...)
	separator := byte('?')
	for part := range strings.SplitSeq(u.RawQuery, "&") {
		if part == "" || !keep(part) {
			continue
		}
		kept = append(kept, separator)
		separator = '&'
		for _, c := range []byte(part) {
			if c <= ' ' || c >= 0x7f { // a field of a head is ASCII
				kept = fmt.Appendf(kept, "%%%02X", c)
			} else {
				kept = append(kept, c)
			}
		}
	}
	return string(kept)
}

// inLocation reports whether a Location keeps this part of the query.
func inLocation(part string) bool {
	one, err := url.ParseQuery(part)
	if err != nil {
		return false
	}
	for name := range one {
		switch {
		case name == "access_token", slices.Contains(cursorParams, name):
			return false
		case name == "startIndex" && !strings.HasPrefix(one.Get(name), "-"):
			return false // startIndex=-3 is no cursor, but a start, as from is
		}
	}
	return true
}

// Header values that all streams share. net/http does not change them.
var (
	noStore     = []string{"no-store, no-transform"}
	noBuffering = []string{"no"}
	noSniffing  = []string{"nosniff"}
)

// jitter returns d, plus or minus up to share of it.
func jitter(d time.Duration, share float64) time.Duration {
	return time.Duration(float64(d) * (1 - share + 2*share*rand.Float64()))
}
