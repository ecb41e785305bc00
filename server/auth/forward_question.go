package auth

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// maxCredentials limits the length of the credentials that the application is asked
// about.
const maxCredentials = 32 << 10

// maxURI limits the length of X-Forwarded-Uri. Many servers refuse a longer header.
const maxURI = 8000

// maxFeeds limits the length of Rejoin-Feeds. Longer lists become several questions.
const maxFeeds = 4000

// digest identifies a question, or credentials. It is a SHA-256.
type digest [sha256.Size]byte

// visitor is the sender of a request. The application decides about it.
type visitor struct {
	forward     *Forward
	method      string
	facts       Facts
	cookie      field
	bearer      field // Authorization
	credentials *credentials
}

// field is a header field that may be absent, which differs from an empty one.
type field struct {
	value string
	given bool
}

// Identify implements [Authorizer]. It asks nothing.
func (f *Forward) Identify(r *http.Request, facts Facts) (Identity, error) {
	v := &visitor{forward: f, method: r.Method, facts: facts}
	if cookies := r.Header["Cookie"]; len(cookies) > 0 {
		v.cookie = field{strings.Join(cookies, "; "), true}
	}
	var err error
	if v.bearer, err = findAuthorization(r); err != nil {
		return nil, err
	}
	for _, value := range []string{v.cookie.value, v.bearer.value, facts.Scheme, facts.Host, facts.Address, facts.URI, r.Method} {
		if !isFieldValue(value) {
			return nil, bad("the credentials have characters that no header may have")
		}
	}
	switch {
	case len(v.cookie.value)+len(v.bearer.value) > maxCredentials:
		return nil, bad("the credentials are too long")
	case len(facts.URI) > maxURI:
		return nil, fmt.Errorf("%w: the address has more than %d bytes", feed.ErrInvalid, maxURI)
	}
	v.credentials = f.credentialsOf(digestOf(v.cookie, v.bearer))
	return v, nil
}

// findAuthorization returns the Authorization to ask with: that of the request, or the
// token in its query.
func findAuthorization(r *http.Request) (field, error) {
	values := r.Header["Authorization"]
	if len(values) > 1 {
		return field{}, bad("there are several headers Authorization")
	}
	if len(values) == 1 && values[0] != "" {
		return field{values[0], true}, nil
	}
	token, err := queryToken(r)
	switch {
	case err != nil:
		return field{}, err
	case token != "":
		return field{"Bearer " + token, true}, nil
	}
	return field{"", len(values) == 1}, nil
}

// isFieldValue reports whether net/http sends the value as it is (RFC 9110, section 5.5).
func isFieldValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// digestOf returns the digest of a list of fields. Different lists have different ones.
func digestOf(fields ...field) digest {
	size := 0
	for _, f := range fields {
		size += 5 + len(f.value)
	}
	text := make([]byte, 0, size)
	for _, f := range fields {
		if !f.given {
			text = append(text, 0)
			continue
		}
		text = append(text, 1)
		text = binary.BigEndian.AppendUint32(text, uint32(len(f.value)))
		text = append(text, f.value...)
	}
	return sha256.Sum256(text)
}

// Subject implements [Identity].
func (v *visitor) Subject() string { return "" }

// FromCookie implements [Identity].
func (v *visitor) FromCookie() bool { return v.cookie.given }

// Grant implements [Identity]. It asks the application, unless that has answered the same
// question lately.
func (v *visitor) Grant(ctx context.Context, action Action, feeds ...string) (Grant, error) {
	for _, name := range feeds {
		if err := feed.CheckName(name); err != nil {
			return Grant{}, err // a list of names must not contain what ends it
		}
	}
	return v.question(action, feeds).grant(ctx, v.forward.answer)
}

// Question is what the application is asked about a request. It holds the request's
// credentials.
type Question struct {
	visitor *visitor
	parts   []*part // all of which must be allowed
}

// part is a question in one request to the application.
type part struct {
	*visitor
	action Action
	feeds  []string
	key    digest
}

// question returns the question about an action on feeds.
func (v *visitor) question(action Action, feeds []string) *Question {
	q := &Question{visitor: v}
	for {
		n, size := 0, 0
		for n < len(feeds) && (n == 0 || size+1+len(feeds[n]) <= maxFeeds) {
			size += 1 + len(feeds[n])
			n++
		}
		q.parts = append(q.parts, v.part(action, feeds[:n]))
		if feeds = feeds[n:]; len(feeds) == 0 {
			return q
		}
	}
}

func (v *visitor) part(action Action, feeds []string) *part {
	p := &part{visitor: v, action: action, feeds: feeds}
	p.key = digestOf(v.cookie, v.bearer,
		field{v.method, true}, field{v.facts.Scheme, true}, field{v.facts.Host, true},
		field{v.facts.Address, true}, field{v.facts.URI, true},
		field{string(action), true}, field{p.list(), true})
	return p
}

func (p *part) list() string { return strings.Join(p.feeds, ",") }

// size is about how many bytes the part holds.
func (p *part) size() int {
	return 512 + len(p.cookie.value) + len(p.bearer.value) + len(p.facts.URI) + len(p.facts.Host) + 2*len(p.list())
}

// request returns the request to the application. It has nothing of the client's request
// but what stands here.
func (p *part) request(ctx context.Context, u *url.URL) *http.Request {
	header := http.Header{
		"Accept":             {"application/json"},
		"User-Agent":         {"Rejoin"},
		"Rejoin-Action":      {string(p.action)},
		"X-Forwarded-Method": {p.method},
		"X-Forwarded-Proto":  {p.facts.Scheme},
		"X-Forwarded-Host":   {p.facts.Host},
		"X-Forwarded-Uri":    {p.facts.URI},
	}
	if p.facts.Address != "" {
		header["X-Forwarded-For"] = []string{p.facts.Address}
	}
	if len(p.feeds) > 0 {
		header["Rejoin-Feeds"] = []string{p.list()}
	}
	if p.cookie.given {
		header["Cookie"] = []string{p.cookie.value}
	}
	if p.bearer.given {
		header["Authorization"] = []string{p.bearer.value}
	}
	r := &http.Request{Method: http.MethodGet, URL: u, Host: u.Host, Header: header}
	return r.WithContext(ctx)
}

// Key identifies the question: equal questions have equal keys.
func (q *Question) Key() [sha256.Size]byte {
	if len(q.parts) == 1 {
		return q.parts[0].key
	}
	fields := make([]field, len(q.parts))
	for i, p := range q.parts {
		fields[i] = field{string(p.key[:]), true}
	}
	return digestOf(fields...)
}

// Visitor stands for the credentials of the question. It is comparable.
type Visitor struct{ credentials *credentials }

// Visitor returns whose question it is.
func (q *Question) Visitor() Visitor { return Visitor{q.visitor.credentials} }

// Size is about how many bytes the question holds.
func (q *Question) Size() int {
	size := 0
	for _, p := range q.parts {
		size += p.size()
	}
	return size
}

// Clone returns an equal question that keeps nothing of the request in memory but what it
// holds itself.
func (q *Question) Clone() *Question {
	v := *q.visitor
	v.method = strings.Clone(v.method)
	v.cookie.value, v.bearer.value = strings.Clone(v.cookie.value), strings.Clone(v.bearer.value)
	f := &v.facts
	f.Scheme, f.Host, f.Address, f.URI = strings.Clone(f.Scheme), strings.Clone(f.Host), strings.Clone(f.Address), strings.Clone(f.URI)
	clone := &Question{visitor: &v}
	for _, p := range q.parts {
		feeds := make([]string, len(p.feeds))
		for i, name := range p.feeds {
			feeds[i] = strings.Clone(name)
		}
		clone.parts = append(clone.parts, &part{&v, p.action, feeds, p.key})
	}
	return clone
}

// Policy returns how open streams are asked about again.
func (q *Question) Policy() Policy {
	o := q.visitor.forward.options
	return Policy{Recheck: o.Recheck, Grace: o.Grace, Timeout: o.Timeout, Concurrency: o.Concurrency}
}

// Policy holds the options of a [Forward] that concern open streams.
type Policy struct {
	Recheck, Grace, Timeout time.Duration
	Concurrency             int
}

// Again asks the application now, whatever it has answered before. If it refuses, no
// earlier answer for these credentials counts any more. The error is a *Refusal, or wraps
// ErrUnavailable.
func (q *Question) Again(ctx context.Context) (Grant, error) {
	return q.grant(ctx, q.visitor.forward.askAgain)
}

// grant returns what the answers to all parts allow together. It asks for them at the same
// time.
func (q *Question) grant(ctx context.Context, answer func(context.Context, *part) (*verdict, error)) (Grant, error) {
	verdicts, errs := make([]*verdict, len(q.parts)), make([]error, len(q.parts))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var others sync.WaitGroup
	for i, p := range q.parts {
		ask := func() {
			if verdicts[i], errs[i] = answer(ctx, p); errs[i] != nil {
				cancel()
			}
		}
		if i == len(q.parts)-1 {
			ask()
		} else {
			others.Go(ask)
		}
	}
	others.Wait()
	g := Grant{question: q}
	for i, v := range verdicts {
		if v != nil && v.refusal != nil {
			return Grant{}, v.refusal
		}
		if errs[i] == nil {
			g.add(q.parts[i], v)
		}
	}
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return Grant{}, err
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Grant{}, err
	}
	return g, nil
}

// add adds the rights of an answer.
func (g *Grant) add(p *part, v *verdict) {
	rights := v.rightsFor(p)
	g.subscribe = append(g.subscribe, rights.Subscribe...)
	g.publish = append(g.publish, rights.Publish...)
	g.close = append(g.close, rights.Close...)
	g.admin = g.admin || rights.Admin
	g.subject = v.subject
	if g.expires.IsZero() || !v.expires.IsZero() && v.expires.Before(g.expires) {
		g.expires = v.expires
	}
	if g.asked.IsZero() || v.asked.Before(g.asked) {
		g.asked = v.asked
	}
}

// Question returns the question that the grant is the answer to, and when the application
// was asked; nil for the grant of a token.
func (g Grant) Question() (q *Question, asked time.Time) { return g.question, g.asked }

// Revoked reports whether the application has refused these credentials since the grant
// was asked for.
func (g Grant) Revoked() bool {
	return g.question != nil && g.question.visitor.forward.revokedSince(g.question.visitor.credentials, g.asked)
}
