package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"

	"github.com/rejoin/rejoin/server/auth"
)

// errForbidden is for what the token does not cover.
var errForbidden = errors.New("not allowed")

// permission is something that a token can allow on a feed.
type permission struct {
	words string
	in    func(g auth.Grant, feed string) bool
}

var (
	subscribing = permission{"subscribe to", auth.Grant.MaySubscribe}
	publishing  = permission{"publish to", auth.Grant.MayPublish}
)

// check returns an error that wraps errForbidden and names the feed, if grant
// does not have the permission.
func (p permission) check(grant auth.Grant, feed string) error {
	if !p.in(grant, feed) {
		return fmt.Errorf("%w: the token may not %s %s", errForbidden, p.words, feed)
	}
	return nil
}

type grantKey struct{}

// grantOf returns what the request may do. Without authenticate before it, that
// is nothing.
func grantOf(ctx context.Context) auth.Grant {
	grant, _ := ctx.Value(grantKey{}).(auth.Grant)
	return grant
}

// authenticate lets requests pass that have a good token, or need none, with
// their grant in the context.
func (s *Server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		grant, err := s.options.Auth.Grant(r)
		switch {
		case errors.Is(err, auth.ErrUnavailable) && (r.Method == http.MethodGet || r.Method == http.MethodHead):
			answerRetryLater(w, r, http.StatusServiceUnavailable, err.Error())
		case errors.Is(err, auth.ErrUnavailable):
			s.writeError(w, r, fmt.Errorf("%w"+nothingStored, err))
		case err != nil:
			unauthorized(w, err)
		case s.foreign(r, grant):
			s.writeError(w, r, fmt.Errorf("%w: pages of other origins may not do this, unless cors.origins has theirs", errForbidden))
		default:
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), grantKey{}, grant)))
		}
	})
}

// unauthorized answers as RFC 6750, section 3, has it: a client that sent no
// token is not told of an error.
func unauthorized(w http.ResponseWriter, err error) {
	challenge := "Bearer"
	if !errors.Is(err, auth.ErrNoToken) {
		challenge = `Bearer error="invalid_token"`
	}
	w.Header().Set("WWW-Authenticate", challenge)
	writeProblem(w, http.StatusUnauthorized, err.Error())
}

// foreign says whether a page of another origin makes its visitor's browser
// change something here: with the visitor's cookie, or, where nobody is asked
// for a token, just because the browser can reach this address and the page's
// author cannot. Clients other than browsers send nothing that would tell.
func (s *Server) foreign(r *http.Request, grant auth.Grant) bool {
	open := s.options.Auth == nil
	if open && slices.Contains(s.options.Origins, anyOrigin) {
		return false
	}
	return (open || grant.FromCookie()) && s.sameOrigin.Check(r) != nil
}

// may lets requests pass that have the permission on the feed in the path. It
// comes before any look at the store: that a feed exists shows in no refusal.
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

// mayAdmin lets requests pass that may delete, trim and list.
func (s *Server) mayAdmin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !grantOf(r.Context()).Admin() {
			s.writeError(w, r, fmt.Errorf("%w: this takes a token with admin", errForbidden))
			return
		}
		next.ServeHTTP(w, r)
	})
}
