// Package auth authorizes requests. A [Verifier] verifies the JSON Web Token of a request
// and returns the rights that it grants. A [Forward] asks the application that the
// visitor is logged in to.
//
// The kind of the key decides on the algorithm, never the token, so no token can make a
// public key serve as a secret, or omit its signature. Every token must expire. No error
// and no log entry of this package contains any part of a token or of a cookie.
package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// leeway is how far nbf and iat may be ahead of this machine's clock. exp has none: a
// token expires at the moment at which a stream opened with it ends.
const leeway = 30 * time.Second

// The reasons for which a request gets no grant.
var (
	// ErrNoToken means that the request has no token.
	ErrNoToken = errors.New("a token is needed")
	// ErrBadToken means that the token is invalid. Errors that wrap it have the
	// reason.
	ErrBadToken = errors.New("the token is not good")
	// ErrUnavailable means that nothing can be decided now: the keys cannot be fetched,
	// or the application does not answer.
	ErrUnavailable = errors.New("the keys to check tokens with cannot be fetched right now")
)

// Verifier verifies tokens. A nil Verifier grants all rights to every request.
type Verifier struct {
	source keySource
	parser *jwt.Parser
	close  func()
}

// keySource returns the keys that may have signed a token. kid is from the token's
// header; empty if it has none. The error is errNoKey, or wraps ErrUnavailable.
type keySource interface {
	keys(ctx context.Context, kid string) ([]key, error)
}

var errNoKey = errors.New("no such key")

// Open returns a verifier, or an error that begins with the name of a wrong option. It
// does not wait for a JWKSURL, which it fetches in the background until Close.
func Open(ctx context.Context, o Options) (*Verifier, error) {
	if err := errors.Join(o.Faults()...); err != nil {
		return nil, err
	}
	v := &Verifier{close: func() {}}
	algorithms := o.Algorithms
	if o.JWKSURL != "" {
		if len(algorithms) == 0 {
			algorithms = publicAlgorithms
		}
		set := openKeySet(ctx, o)
		v.source, v.close = set, set.close
	} else {
		k, err := o.readKey()
		if err != nil {
			return nil, err
		}
		v.source, algorithms = oneKey{k}, k.algorithms
	}
	v.parser = newParser(algorithms, o)
	return v, nil
}

// Check reports whether the keys can be read now. It fetches JWKSURL once. Its errors
// contain no secret, and begin with the name of the option.
func Check(ctx context.Context, o Options) error {
	if err := errors.Join(o.Faults()...); err != nil {
		return err
	}
	if o.JWKSURL == "" {
		_, err := o.readKey()
		return err
	}
	_, err := newKeySet(o).fetch(ctx)
	return prefix("jwks_url", err)
}

func newParser(algorithms []string, o Options) *jwt.Parser {
	options := []jwt.ParserOption{
		jwt.WithValidMethods(algorithms),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(leeway),
		jwt.WithStrictDecoding(),
	}
	if o.Issuer != "" {
		options = append(options, jwt.WithIssuer(o.Issuer))
	}
	if o.Audience != "" {
		options = append(options, jwt.WithAudience(o.Audience))
	}
	return jwt.NewParser(options...)
}

// Close ends the verifier's goroutines.
func (v *Verifier) Close() {
	if v != nil {
		v.close()
	}
}

// Grant returns the rights of r. Its error wraps ErrNoToken, ErrBadToken or
// ErrUnavailable.
func (v *Verifier) Grant(r *http.Request) (Grant, error) {
	if v == nil {
		return Grant{everything: true}, nil
	}
	token, cookie, err := findToken(r)
	if err != nil {
		return Grant{}, err
	}
	c, err := v.verify(r.Context(), token)
	if err != nil {
		return Grant{}, err
	}
	return Grant{
		subscribe: c.rights.Subscribe,
		publish:   c.rights.Publish,
		close:     c.rights.Close,
		admin:     c.rights.Admin,
		expires:   c.expires.Time,
		subject:   c.subject,
		cookie:    cookie,
	}, nil
}

func (v *Verifier) verify(ctx context.Context, token string) (*claims, error) {
	// Before any parsing, which such a length would make expensive.
	if len(token) > maxToken {
		return nil, bad("it is too long")
	}
	var c claims
	_, err := v.parser.ParseWithClaims(token, &c, func(t *jwt.Token) (any, error) { return v.keysFor(ctx, t) })
	switch {
	case errors.Is(err, ErrUnavailable):
		return nil, ErrUnavailable
	case err != nil:
		return nil, bad(reason(err))
	case !time.Now().Before(c.expires.Time):
		return nil, bad(reason(jwt.ErrTokenExpired))
	}
	return &c, nil
}

// keysFor is the jwt.Keyfunc. The parser has checked that this package accepts the
// algorithm; keysFor checks that the key does.
func (v *Verifier) keysFor(ctx context.Context, t *jwt.Token) (any, error) {
	if _, ok := t.Header["crit"]; ok {
		// RFC 7515, section 4.1.11: a verifier must refuse critical headers that it
		// does not understand. This one understands none.
		return nil, jwt.ErrTokenUnverifiable
	}
	kid, ok := t.Header["kid"].(string)
	if _, there := t.Header["kid"]; there && !ok {
		return nil, jwt.ErrTokenMalformed
	}
	keys, err := v.source.keys(ctx, kid)
	if err != nil {
		return nil, err
	}
	var fitting jwt.VerificationKeySet
	for _, k := range keys {
		if slices.Contains(k.algorithms, t.Method.Alg()) {
			fitting.Keys = append(fitting.Keys, k.public)
		}
	}
	if len(fitting.Keys) == 0 {
		return nil, errNoKey
	}
	return fitting, nil
}

// reasons maps errors to the texts that a client gets; the first match counts. The texts
// of libraries would repeat parts of the token.
var reasons = []struct {
	err  error
	text string
}{
	{errNoKey, "it is signed with a key, or in a way, that is not accepted here"},
	{errClaim, "its claim rejoin cannot be understood"},
	{jwt.ErrTokenSignatureInvalid, "it is signed with a key, or in a way, that is not accepted here"},
	{jwt.ErrTokenExpired, "it has expired"},
	{jwt.ErrTokenRequiredClaimMissing, "it has no exp, or lacks the iss or aud that is asked for"},
	{jwt.ErrTokenNotValidYet, "it is not valid yet"},
	{jwt.ErrTokenUsedBeforeIssued, "it was issued in the future"},
	{jwt.ErrTokenInvalidAudience, "it is for another audience"},
	{jwt.ErrTokenInvalidIssuer, "it is of another issuer"},
}

func reason(err error) string {
	if farAway, ok := errors.AsType[farAwayError](err); ok {
		return farAway.Error()
	}
	for _, known := range reasons {
		if errors.Is(err, known.err) {
			return known.text
		}
	}
	return "it cannot be read"
}

func bad(reason string) error { return fmt.Errorf("%w: %s", ErrBadToken, reason) }
