package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/rejoin/rejoin/feed"
)

const (
	// answerBytes limits an answer in JSON.
	answerBytes = 64 << 10
	// drainBytes is how much of an answer without JSON is read, so that its connection
	// serves the next question.
	drainBytes = 4 << 10
	// A client gets so many challenges of the application, of at most this length.
	maxChallenges, challengeBytes = 4, 1 << 10
)

// verdict is an answer of the application. It does not change.
type verdict struct {
	asked   time.Time // when the question was sent
	refusal *Refusal  // nil if it is allowed
	rights  *Rights   // nil means just what was asked for
	expires time.Time // zero means never
	subject string    // empty if it is not known
}

// rightsFor returns the rights that the answer to p gives.
func (v *verdict) rightsFor(p *part) Rights {
	if v.rights != nil {
		return *v.rights
	}
	switch p.action {
	case Subscribe:
		return Rights{Subscribe: p.feeds}
	case Publish:
		return Rights{Publish: p.feeds}
	case Close:
		return Rights{Close: p.feeds}
	}
	return Rights{Admin: true}
}

// covers reports whether the rights allow what p asks for.
func (r Rights) covers(p *part) bool {
	g := Grant{subscribe: r.Subscribe, publish: r.Publish, close: r.Close, admin: r.Admin}
	may := map[Action]func(string) bool{Subscribe: g.MaySubscribe, Publish: g.MayPublish, Close: g.MayClose}[p.action]
	if may == nil {
		return g.Admin()
	}
	return !slices.ContainsFunc(p.feeds, func(name string) bool { return !may(name) })
}

// size is about how many bytes the verdict holds.
func (v *verdict) size() int {
	size := 256 + len(v.subject)
	if v.rights != nil {
		for _, patterns := range [][]string{v.rights.Subscribe, v.rights.Publish, v.rights.Close} {
			for _, pattern := range patterns {
				size += 16 + len(pattern)
			}
		}
	}
	if v.refusal != nil {
		for _, challenge := range v.refusal.Challenges {
			size += 16 + len(challenge)
		}
	}
	return size
}

// Two refusals for which the client needs other credentials.
var (
	errUnknown  = &textError{"the application does not know who sends this", ErrBadToken}
	errTimeIsUp = &textError{"the time for which the application allowed this has passed", ErrBadToken}
)

// readAnswer reads the answer to p. An error means that it is none.
func readAnswer(resp *http.Response, p *part, asked time.Time) (*verdict, error) {
	v := &verdict{asked: asked}
	switch status := resp.StatusCode; {
	case status == http.StatusUnauthorized:
		v.refusal = &Refusal{challenges(resp.Header), errUnknown}
	case status == http.StatusForbidden:
		v.refusal = &Refusal{challenges(resp.Header), ErrRefused}
	case isRedirect(status):
		v.refusal = &Refusal{err: errUnknown} // it leads to a login page
	case status < 200 || status > 299:
		return nil, fmt.Errorf("the answer is %d, neither 2xx nor 401 nor 403", status)
	default:
		if err := v.allow(resp, p); err != nil {
			return nil, err
		}
		return v, nil
	}
	_, _ = io.CopyN(io.Discard, resp.Body, drainBytes)
	return v, nil
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

func challenges(h http.Header) (challenges []string) {
	for _, challenge := range h["Www-Authenticate"] {
		if len(challenges) < maxChallenges && len(challenge) <= challengeBytes {
			challenges = append(challenges, challenge)
		}
	}
	return challenges
}

// allow reads the body of an answer that allows something.
func (v *verdict) allow(resp *http.Response, p *part) error {
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media != "application/json" {
		if resp.ContentLength <= drainBytes {
			_, _ = io.CopyN(io.Discard, resp.Body, drainBytes)
		}
		return nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, answerBytes+1))
	switch {
	case err != nil:
		return fmt.Errorf("read the answer: %w", err)
	case len(body) > answerBytes:
		return fmt.Errorf("the answer has more than %d bytes", answerBytes)
	case len(body) == 0:
		return nil // some frameworks give an empty answer the type that the question accepts
	}
	if err := v.parse(body); err != nil {
		return err
	}
	switch {
	case v.rights == nil:
	case !v.expires.IsZero() && !time.Now().Before(v.expires):
		v.refusal = &Refusal{err: errTimeIsUp}
	case !v.rights.covers(p):
		v.refusal = &Refusal{err: ErrRefused}
	}
	return nil
}

// parse parses an answer in JSON. One without a member rejoin allows just what was asked.
func (v *verdict) parse(body []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		if json.Valid(body) {
			return nil // not an object
		}
		return errors.New("the answer is not JSON, though its Content-Type is")
	}
	claim, ok := members["rejoin"]
	if !ok {
		return nil
	}
	rights, err := parseRights(claim)
	if err != nil {
		return fmt.Errorf("of the answer, %w", err)
	}
	v.rights = &rights
	if sub, ok := members["sub"]; ok {
		var subject any // for logs and limits only, so a strange one does no harm
		_ = json.Unmarshal(sub, &subject)
		v.subject, _ = subject.(string)
	}
	var expires *json.Number
	var end *jwt.NumericDate
	if exp, ok := members["exp"]; ok {
		if err := json.Unmarshal(exp, &expires); err != nil {
			return errors.New("the answer's exp is not a number")
		}
	}
	if err := readTime("exp", expires, &end); err != nil {
		return fmt.Errorf("of the answer, %w", err)
	}
	if end != nil {
		v.expires = end.Time
	}
	return nil
}

// The kinds of answers in metrics.
const (
	allowed = iota
	unauthorized
	forbidden
	unanswered
	verdictKinds
)

// ForwardStats holds what a [Forward] has counted.
type ForwardStats struct {
	// Questions counts questions by the verdict: allowed, unauthorized, forbidden,
	// unanswered.
	Questions map[string]uint64
	// Hits counts the times that an answer was there already.
	Hits uint64
	// Seconds has the times until an answer, or until there was none.
	Seconds *feed.Durations
}

func kindOf(v *verdict, err error) int {
	switch {
	case err != nil:
		return unanswered
	case v.refusal == nil:
		return allowed
	case errors.Is(v.refusal, ErrBadToken):
		return unauthorized
	}
	return forbidden
}

// Stats returns what f has counted.
func (f *Forward) Stats() ForwardStats {
	s := ForwardStats{Questions: make(map[string]uint64), Hits: f.hits.Load(), Seconds: &f.seconds}
	for kind, name := range [verdictKinds]string{"allowed", "unauthorized", "forbidden", "unanswered"} {
		s.Questions[name] = f.questions[kind].Load()
	}
	return s
}
