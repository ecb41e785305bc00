package server

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/rejoin/rejoin/feed"
)

const (
	mediaJSON  = "application/json"
	mediaLines = "application/x-ndjson"
	mediaSSE   = "text/event-stream"
)

// publishRequest is a parsed request to publish, without its body.
type publishRequest struct {
	feed      string // empty for several feeds
	media     string // the body's media type; empty if it is absent or malformed
	eventType string
	key       string // empty for none
	ifLast    *feed.ID
	close     bool
	ephemeral bool
	stream    bool // the events are committed as the body arrives
	trace     string
}

func (p publishRequest) isBatch() bool { return p.media == mediaLines && !p.stream }

func (p publishRequest) publication(drafts ...feed.Draft) feed.Publication {
	return feed.Publication{Feed: p.feed, Drafts: drafts, Key: p.key, IfLast: p.ifLast, Close: p.close, Trace: p.trace}
}

// readPublish reads a request for one feed.
func readPublish(r *http.Request) (publishRequest, error) {
	name, err := writableName(r)
	if err != nil {
		return publishRequest{}, err
	}
	p, err := readPublishOptions(r)
	if err != nil {
		return publishRequest{}, err
	}
	p.feed = strings.Clone(name) // so that the log does not keep the whole request in memory
	switch {
	case p.ephemeral && (p.key != "" || p.ifLast != nil || p.close):
		err = invalid("an ephemeral event is not stored: Idempotency-Key, If-Match and close do not apply")
	case p.ephemeral && (p.isBatch() || p.stream):
		err = invalid("an ephemeral event is published alone, not in a batch or a stream")
	case p.stream && len(p.key) > maxStreamKey:
		err = invalid("the Idempotency-Key of a stream has at most %d characters, not %d: each event gets the key with its number", maxStreamKey, len(p.key))
	}
	return p, err
}

// maxStreamKey leaves room in a key for the number of an event.
const maxStreamKey = 240

// readPublishMany reads a request for several feeds.
func readPublishMany(r *http.Request) (publishRequest, error) {
	p, err := readPublishOptions(r)
	switch {
	case err != nil:
	case p.media != mediaLines:
		err = fmt.Errorf("%w: events for several feeds must be %s", errMediaType, mediaLines)
	case p.ifLast != nil || p.close:
		err = invalid("If-Match and close apply to one feed: publish to /v1/feeds/{feed}/events")
	case p.stream:
		err = invalid("a stream is for one feed: publish to /v1/feeds/{feed}/events")
	case p.ephemeral:
		err = invalid("an ephemeral event is published alone, not in a batch")
	}
	return p, err
}

// readPublishOptions reads the part that requests for one feed and for several share.
func readPublishOptions(r *http.Request) (p publishRequest, err error) {
	query, err := readQuery(r)
	if err != nil {
		return p, err
	}
	p.trace = traceOf(r.Context())
	if p.media, err = readMedia(r.Header); err != nil {
		return p, err
	}
	if p.stream, err = readFlag(query, "stream"); err != nil {
		return p, err
	}
	switch {
	case p.media == mediaSSE:
		p.stream = true
	case p.stream && p.media != mediaLines:
		return p, invalid("stream=true is for a body of %s; one of %s is always a stream", mediaLines, mediaSSE)
	}
	if p.eventType, err = readType(r.Header, query); err != nil {
		return p, err
	}
	if p.isBatch() && p.eventType != "" {
		return p, invalid("each line of a batch has its own type; Event-Type and ?type= are for a single event")
	}
	if p.key, err = readKey(r.Header); err != nil {
		return p, err
	}
	if p.ifLast, err = readIfMatch(r.Header); err != nil {
		return p, err
	}
	if p.close, err = readFlag(query, "close"); err != nil {
		return p, err
	}
	p.ephemeral, err = readFlag(query, "ephemeral")
	return p, err
}

// readClose reads a request to close a feed without an event, which clients can repeat
// without a key.
func readClose(r *http.Request) (feed.Publication, error) {
	name, err := writableName(r)
	if err != nil {
		return feed.Publication{}, err
	}
	ifLast, err := readIfMatch(r.Header)
	return feed.Publication{Feed: name, IfLast: ifLast, Close: true}, err
}

// readMedia returns the media type of the body. It refuses a charset other than UTF-8,
// because the text would be stored wrongly.
func readMedia(h http.Header) (string, error) {
	if codings := h.Values("Content-Encoding"); len(codings) > 1 || len(codings) == 1 && !strings.EqualFold(codings[0], "identity") {
		return "", fmt.Errorf("%w: the content coding %.40q is not understood; send the body as it is", errMediaType, strings.Join(codings, ", "))
	}
	value, _, err := readHeader(h, "Content-Type")
	if err != nil {
		return "", err
	}
	switch value {
	case mediaJSON, mediaLines:
		return value, nil
	}
	media, params, _ := mime.ParseMediaType(value)
	switch strings.ToLower(params["charset"]) {
	case "", "utf-8", "utf8", "us-ascii":
		return media, nil
	}
	return "", fmt.Errorf("%w: the body is in %.40q; send it in UTF-8", errMediaType, params["charset"])
}

// readType returns the event's type from the header or the query.
func readType(h http.Header, query url.Values) (string, error) {
	header, _, err := readHeader(h, "Event-Type")
	if err != nil {
		return "", err
	}
	param := query.Get("type")
	if header != "" && param != "" && header != param {
		return "", invalid("the header Event-Type and the query parameter type name different types")
	}
	if header == "" {
		header = strings.Clone(param) // see readPublish
	}
	return header, feed.CheckType(header)
}

func readKey(h http.Header) (string, error) {
	key, given, err := readHeader(h, "Idempotency-Key")
	if err != nil || !given {
		return "", err
	}
	return key, feed.CheckKey(key)
}

// readIfMatch returns the id that must be the feed's last, or nil.
func readIfMatch(h http.Header) (*feed.ID, error) {
	value, given, err := readHeader(h, "If-Match")
	if err != nil || !given {
		return nil, err
	}
	if id, err := feed.ParseCursor(strings.Trim(value, `"`)); err == nil && value == lastTag(id) {
		return new(id), nil
	}
	return nil, invalid(`If-Match is the id of the feed's last event in quotes, such as "41", not %.40q`, value)
}
