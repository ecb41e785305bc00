package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/rejoin/rejoin/feed"
)

// Publication is what one publish asks the server to store: all of it or
// nothing.
type Publication struct {
	// Feed is the feed of the drafts. It is empty if each of them names its own,
	// which leaves no room for IfLast and Close.
	Feed string
	// Drafts are the events, in order. There may be none if Close is set. The
	// feed of a draft may be left out where Feed names it. Several drafts travel
	// as lines: in those, a line break between the tokens of JSON becomes a
	// space.
	Drafts []feed.Draft

	// Key is the idempotency key: the same publication with the same key is
	// stored once. Publish makes one where it is empty.
	Key string
	// IfLast, if not nil, makes the server refuse the publication unless this is
	// the feed's last id.
	IfLast *feed.ID
	// Close closes the feed behind the drafts, for ever.
	Close bool
}

// request is a publication in the form that travels.
type request struct {
	to     *url.URL
	header http.Header
	body   string
	feeds  []string // of the drafts
	batch  bool     // the answer is a list
}

// request encodes p. Its error wraps feed.ErrInvalid.
func (c *Client) request(p Publication) (*request, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	r := &request{header: make(http.Header)}
	for _, d := range p.Drafts {
		if d.Feed == "" {
			d.Feed = p.Feed
		}
		r.feeds = append(r.feeds, d.Feed)
	}
	if p.Key != "" {
		r.header.Set("Idempotency-Key", p.Key)
	}
	if p.IfLast != nil {
		r.header.Set("If-Match", `"`+p.IfLast.String()+`"`)
	}
	switch {
	case p.Feed == "":
		r.to = c.URL("v1", "events")
		return r, r.lines(p.Drafts, true)
	case len(p.Drafts) == 0:
		r.to = c.URL("v1", "feeds", p.Feed, "close")
		return r, nil
	}
	r.to = c.URL("v1", "feeds", p.Feed, "events")
	if p.Close {
		r.to.RawQuery = "close=true"
	}
	if len(p.Drafts) > 1 {
		return r, r.lines(p.Drafts, false)
	}
	r.one(p.Drafts[0])
	return r, nil
}

func (p Publication) check() error {
	switch {
	case len(p.Drafts) == 0 && !p.Close:
		return invalid("the publication has neither drafts nor a close")
	case p.Feed == "" && (p.IfLast != nil || p.Close):
		return invalid("IfLast and Close are about one feed, which the publication does not name")
	}
	if p.Feed != "" {
		if err := feed.CheckName(p.Feed); err != nil {
			return err
		}
	}
	if p.Key != "" {
		if err := feed.CheckKey(p.Key); err != nil {
			return err
		}
	}
	for i, d := range p.Drafts {
		if err := p.checkDraft(d); err != nil {
			if len(p.Drafts) > 1 {
				err = &feed.DraftError{Index: i, Err: err}
			}
			return err
		}
	}
	return nil
}

// checkDraft checks what would not reach the server as it is. The rest of the
// rules are the server's to apply.
func (p Publication) checkDraft(d feed.Draft) error {
	lines := p.Feed == "" || len(p.Drafts) > 1
	switch {
	case p.Feed != "" && d.Feed != "" && d.Feed != p.Feed:
		return invalid("it is for the feed %s, the publication for %s", d.Feed, p.Feed)
	case lines:
		if err := checkLine(d); err != nil {
			return err
		}
	}
	if p.Feed == "" {
		if err := feed.CheckName(d.Feed); err != nil {
			return err
		}
	}
	return feed.CheckType(d.Type)
}

// checkLine checks what would not reach the server as it is in a line.
func checkLine(d feed.Draft) error {
	switch {
	case !utf8.ValidString(d.Data):
		return invalid("the data is not UTF-8")
	case d.JSON && !feed.ValidJSON(d.Data):
		return invalid("the data is not valid JSON")
	}
	return nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{feed.ErrInvalid}, args...)...)
}

// one makes the draft the body.
func (r *request) one(d feed.Draft) {
	r.header.Set("Content-Type", "text/plain; charset=utf-8")
	if d.JSON {
		r.header.Set("Content-Type", "application/json")
	}
	if d.Type != "" {
		r.header.Set("Event-Type", d.Type)
	}
	r.body = d.Data
}

// lineBreaks become spaces in JSON, where only space between tokens has them.
var lineBreaks = strings.NewReplacer("\n", " ", "\r", " ")

// lines makes the drafts lines of the body, each with its feed if named.
func (r *request) lines(drafts []feed.Draft, named bool) error {
	var body bytes.Buffer
	for i, d := range drafts {
		head := struct {
			Feed string `json:"feed,omitempty"`
			Type string `json:"type,omitempty"`
		}{Type: d.Type}
		if named {
			head.Feed = r.feeds[i]
		}
		line, err := json.Marshal(head)
		if err != nil {
			return err
		}
		// Behind the head, not in it: json.Marshal would rewrite published JSON.
		data := []byte(lineBreaks.Replace(d.Data))
		if !d.JSON {
			if data, err = json.Marshal(d.Data); err != nil {
				return err
			}
		}
		body.Write(bytes.TrimSuffix(line, []byte("}")))
		if len(line) > len("{}") {
			body.WriteByte(',')
		}
		body.WriteString(`"data":`)
		body.Write(data)
		body.WriteString("}\n")
	}
	r.batch, r.body = true, body.String()
	r.header.Set("Content-Type", "application/x-ndjson")
	return nil
}

// http returns the request for one attempt.
func (r *request) http(ctx context.Context) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.to.String(), strings.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	req.Header = r.header.Clone()
	return req, nil
}

// ids reads the ids of the drafts from the answer.
func (r *request) ids(answer []byte) (ids []feed.ID, err error) {
	type entry struct {
		Feed string
		ID   feed.ID
	}
	var got struct {
		entry
		Events []entry
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return nil, err
	}
	if !r.batch {
		got.Events = []entry{{r.feeds[0], got.ID}}
	}
	if len(got.Events) != len(r.feeds) {
		return nil, fmt.Errorf("it names %d events of %d", len(got.Events), len(r.feeds))
	}
	for i, e := range got.Events {
		if e.ID == 0 || e.Feed != r.feeds[i] {
			return nil, errors.New("an event of it has no id, or another feed")
		}
		ids = append(ids, e.ID)
	}
	return ids, nil
}
