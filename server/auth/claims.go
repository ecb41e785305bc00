package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/rejoin/rejoin/feed"
)

var errClaim = errors.New("the claim rejoin is malformed")

// farAwayError reports an impossible time. It is the name of the claim.
type farAwayError string

func (claim farAwayError) Error() string {
	return "its " + string(claim) + " is too far away to be a time in seconds; it may be in milliseconds"
}

// maxSeconds is the end of the year 9999, the last year in RFC 3339. Read as
// milliseconds, it is in 1978.
const maxSeconds = 253402300799

// Rights is the claim "rejoin" of a token. A pattern is the name of a feed, or the
// beginning of names followed by *.
type Rights struct {
	Subscribe []string `json:"subscribe,omitempty"`
	Publish   []string `json:"publish,omitempty"`
	Close     []string `json:"close,omitempty"`
	Admin     bool     `json:"admin,omitempty"`
}

// Check returns an error that names the first malformed pattern, or nil.
func (r Rights) Check() error {
	for _, patterns := range [][]string{r.Subscribe, r.Publish, r.Close} {
		for _, pattern := range patterns {
			if feed.CheckPattern(pattern) != nil {
				return fmt.Errorf("the pattern %.40q is neither the name of a feed nor the beginning of names followed by *", pattern)
			}
		}
	}
	return nil
}

// claims holds the claims of a token that matter here.
type claims struct {
	issuer, subject            string
	audience                   jwt.ClaimStrings
	expires, notBefore, issued *jwt.NumericDate
	rights                     Rights
}

// UnmarshalJSON reads claims by their exact names: encoding/json would accept "EXP" for
// "exp".
func (c *claims) UnmarshalJSON(b []byte) error {
	var expires, notBefore, issued *json.Number
	var subject any // for logs and limits only, so a strange one does no harm
	if err := unmarshalExact(b, map[string]any{
		"iss": &c.issuer, "aud": &c.audience, "exp": &expires, "nbf": &notBefore, "iat": &issued, "sub": &subject,
	}); err != nil {
		return err
	}
	c.subject, _ = subject.(string)
	if err := errors.Join(
		readTime("exp", expires, &c.expires), readTime("nbf", notBefore, &c.notBefore), readTime("iat", issued, &c.issued),
	); err != nil {
		return err
	}
	var rights json.RawMessage
	if err := unmarshalExact(b, map[string]any{"rejoin": &rights}); err != nil {
		return err
	}
	if rights == nil {
		return nil
	}
	var err error
	c.rights, err = parseRights(rights)
	return err
}

// parseRights parses the claim "rejoin".
func parseRights(claim json.RawMessage) (r Rights, err error) {
	if unmarshalExact(claim, map[string]any{
		"subscribe": &r.Subscribe, "publish": &r.Publish, "close": &r.Close, "admin": &r.Admin,
	}) != nil || r.Check() != nil {
		return Rights{}, errClaim
	}
	return r, nil
}

func unmarshalExact(b []byte, to map[string]any) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(b, &members); err != nil {
		return err
	}
	for name, value := range to {
		if member, ok := members[name]; ok {
			if err := json.Unmarshal(member, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// readTime reads whole seconds since 1970. jwt.NumericDate would turn impossible numbers
// into some other time.
func readTime(claim string, n *json.Number, to **jwt.NumericDate) error {
	if n == nil {
		return nil
	}
	seconds, err := n.Float64()
	if err != nil || math.Abs(seconds) > maxSeconds {
		return farAwayError(claim)
	}
	*to = jwt.NewNumericDate(time.Unix(int64(seconds), 0))
	return nil
}

// The methods of jwt.Claims.

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.expires, nil }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return c.notBefore, nil }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return c.issued, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return c.audience, nil }
func (c *claims) GetIssuer() (string, error)                   { return c.issuer, nil }
func (c *claims) GetSubject() (string, error)                  { return c.subject, nil }
