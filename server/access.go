package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/rejoin/rejoin/server/auth"
)

// errForbidden means that the token does not allow the request.
var errForbidden = errors.New("not allowed")

// errForeign means that a page of another origin made the request.
var errForeign = fmt.Errorf("%w: pages of other origins may not do this unless cors.origins lists them", errForbidden)

// permission is an action on a feed that a token can allow.
type permission struct {
	action  string
	granted func(g auth.Grant, feed string) bool
}

var (
	subscribing = permission{"subscribe to", auth.Grant.MaySubscribe}
	publishing  = permission{"publish to", auth.Grant.MayPublish}
	closing     = permission{"close", auth.Grant.MayClose}
)

// check returns an error that wraps errForbidden and names the feed, unless grant has
// the permission.
func (p permission) check(grant auth.Grant, feed string) error {
	if !p.granted(grant, feed) {
		return &feedError{feed, fmt.Errorf("%w: the token may not %s %s", errForbidden, p.action, feed)}
	}
	return nil
}

type grantKey struct{}

// grantOf returns the grant of the request that authenticate has checked, or an empty
// one.
func grantOf(ctx context.Context) auth.Grant {
	grant, _ := ctx.Value(grantKey{}).(auth.Grant)
	return grant
}

// authenticate passes requests with a valid token on, with their grant in the context.
// Without authorization, it passes all.
func (s *Server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := s.options()
		grant, err := o.Auth.Grant(r)
		noteSubject(w, grant.Subject())
		switch {
		case errors.Is(err, auth.ErrUnavailable) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			s.refusals.refuse(w, r, refusalOf(err))
			answerRetryLater(w, r, http.StatusServiceUnavailable, err.Error())
		case errors.Is(err, auth.ErrUnavailable):
			s.writeError(w, r, fmt.Errorf("%w"+nothingStored, err))
		case err != nil:
			s.refusals.refuse(w, r, refusal{refusedToken, http.StatusUnauthorized, err})
			unauthorized(w, err)
		case o.foreign(r, grant):
			s.writeError(w, r, errForeign)
		default:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), grantKey{}, grant)))
		}
	})
}

// invalidToken is the challenge to a client with a token that is no good.
const invalidToken = `Bearer error="invalid_token"`

// unauthorized answers as RFC 6750, section 3, demands: without an error code for a
// client that sent no token.
func unauthorized(w http.ResponseWriter, err error) {
	challenge := "Bearer"
	if !errors.Is(err, auth.ErrNoToken) {
		challenge = invalidToken
	}
	w.Header().Set("WWW-Authenticate", challenge)
	writeProblem(w, http.StatusUnauthorized, err.Error())
}

// foreign reports whether a page of another origin makes its visitor's browser change
// something here: with the visitor's cookie or, without authorization, because the
// browser can reach this address and the page's author cannot. Only browsers send the
// headers that reveal it.
func (o *settings) foreign(r *http.Request, grant auth.Grant) bool {
	open := o.Auth == nil
	if open && slices.Contains(o.Origins, anyOrigin) {
		return false
	}
	return (open || grant.FromCookie()) && o.sameOrigin.Check(r) != nil
}

// may passes requests on that have the permission on the feed in the path. It does not
// ask the store, so a refusal does not reveal whether the feed exists.
func (s *Server) may(p permission) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name, err := feedName(r)
			if err == nil {
				err = p.check(grantOf(r.Context()), name)
			}
			if err != nil {
				s.writeError(w, r, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// mayAdmin passes requests on that may delete, trim and list.
func (s *Server) mayAdmin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !grantOf(r.Context()).Admin() {
			s.writeError(w, r, fmt.Errorf("%w: this needs a token with admin", errForbidden))
			return
		}
		next.ServeHTTP(w, r)
	})
}
