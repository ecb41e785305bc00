package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/auth"
)

// errForbidden means that the token does not allow the request.
var errForbidden = errors.New("not allowed")

// errForeign means that a page of another origin made the request.
var errForeign = fmt.Errorf("%w: pages of other origins may not do this unless cors.origins lists them", errForbidden)

// permission is an action on a feed that a grant can allow.
type permission struct {
	action  auth.Action
	verb    string
	granted func(g auth.Grant, feed string) bool
}

var (
	subscribing = permission{auth.Subscribe, "subscribe to", maySubscribe}
	publishing  = permission{auth.Publish, "publish to", auth.Grant.MayPublish}
	closing     = permission{auth.Close, "close", auth.Grant.MayClose}
)

// maySubscribe reports whether the grant allows reading the feed. The server's own feeds are
// for those who may list all feeds.
func maySubscribe(g auth.Grant, name string) bool {
	if feed.Reserved(name) {
		return g.Admin()
	}
	return g.MaySubscribe(name)
}

// actionOn returns the action that the permission on these feeds is asked for with.
func (p permission) actionOn(feeds []string) auth.Action {
	if p.action == auth.Subscribe && !slices.ContainsFunc(feeds, func(name string) bool { return !feed.Reserved(name) }) {
		return auth.Admin
	}
	return p.action
}

// check returns an error that wraps errForbidden and names the feed, unless grant has
// the permission.
func (p permission) check(grant auth.Grant, name string) error {
	switch {
	case p.granted(grant, name):
		return nil
	case p.action == auth.Subscribe && feed.Reserved(name):
		return &feedError{name, fmt.Errorf("%w: %s belongs to the server, and subscribing to it needs a token with admin", errForbidden, name)}
	}
	return &feedError{name, fmt.Errorf("%w: the token may not %s %s", errForbidden, p.verb, name)}
}

// access is the sender of a request, with the rights that are known of.
type access struct {
	identity auth.Identity
	grant    auth.Grant // empty before authorize
	held     bool       // it is not decided yet whether the stream may begin

	// What authorize was called with.
	permission permission
	feeds      []string
}

type accessKey struct{}

// accessOf returns the access of the request that authenticate has checked, or one that
// allows nothing.
func accessOf(ctx context.Context) *access {
	if a, ok := ctx.Value(accessKey{}).(*access); ok {
		return a
	}
	return &access{}
}

// grantOf returns the grant that authorize has found for the request, or an empty one.
func grantOf(ctx context.Context) auth.Grant { return accessOf(ctx).grant }

// authenticate notes whose requests they are, and passes them on, unless their credentials
// are no good. Without authorization, it passes all.
func (s *Server) authenticate(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := s.options()
		identity, err := o.identify(r)
		if err == nil {
			noteSubject(w, identity.Subject())
		}
		switch {
		case err != nil:
			s.deny(w, r, err)
		case o.foreign(r, identity):
			s.writeError(w, r, errForeign)
		default:
			accessOf(r.Context()).identity = identity
			next.ServeHTTP(w, r)
		}
	})
}

func (o *settings) identify(r *http.Request) (auth.Identity, error) {
	if o.Auth == nil {
		return auth.Everyone, nil
	}
	var facts auth.Facts // which a token makes superfluous
	if _, asks := o.Auth.(*auth.Forward); asks {
		client := o.TrustedProxies.Client(r)
		facts = auth.Facts{Scheme: client.Scheme, Host: client.Host, URI: askedLocation(r)}
		if client.Address.IsValid() {
			facts.Address = client.Address.String()
		}
	}
	return o.Auth.Identify(r, facts)
}

// authorize finds the grant of a request that needs the permission on feeds, and checks
// it. Its error wraps errForbidden or auth.ErrUnavailable, or is an *auth.Refusal.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request, p permission, feeds ...string) error {
	a := accessOf(r.Context())
	a.permission, a.feeds = p, feeds
	err := a.ask(r.Context())
	noteSubject(w, a.grant.Subject())
	if _, named := errors.AsType[*feedError](err); err != nil && !named {
		return &feedError{shortened(strings.Join(feeds, ",")), err}
	}
	return err
}

// ask finds and checks the grant for what authorize was called with.
func (a *access) ask(ctx context.Context) (err error) {
	if a.grant, err = a.identity.Grant(ctx, a.permission.actionOn(a.feeds), a.feeds...); err != nil {
		return err
	}
	for _, name := range a.feeds {
		if err := a.permission.check(a.grant, name); err != nil {
			return err
		}
	}
	return nil
}

// hold reports whether a request for a stream is accepted although err leaves open
// whether it may begin: any other answer would stop a browser's EventSource.
func (a *access) hold(r *http.Request, err error) bool {
	a.held = errors.Is(err, auth.ErrUnavailable) && r.Method == http.MethodGet && accepts(r, "text/event-stream")
	return a.held
}

// deny answers a request that is not authorized.
func (s *Server) deny(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case !errors.Is(err, auth.ErrUnavailable):
		s.writeError(w, r, err)
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		s.refusals.refuse(w, r, refusalOf(err))
		answerRetryLater(w, r, http.StatusServiceUnavailable, err.Error())
	default:
		s.writeError(w, r, fmt.Errorf("%w"+nothingStored, err))
	}
}

// invalidToken is the challenge to a client with a token that is no good.
const invalidToken = `Bearer error="invalid_token"`

// challengesTo returns the values of WWW-Authenticate for an error with this status: those
// of the application, or as RFC 6750, section 3, demands, without an error code for a
// client that sent no token.
func challengesTo(status int, err error) []string {
	refusal, refused := errors.AsType[*auth.Refusal](err)
	switch {
	case refused && (len(refusal.Challenges) > 0 || status != http.StatusUnauthorized):
		return refusal.Challenges
	case status != http.StatusUnauthorized:
		return nil
	case refused || errors.Is(err, auth.ErrNoToken):
		return []string{"Bearer"}
	}
	return []string{invalidToken}
}

// foreign reports whether a page of another origin makes its visitor's browser change
// something here: with the visitor's cookie or, without authorization, because the
// browser can reach this address and the page's author cannot. Only browsers send the
// headers that reveal it.
func (o *settings) foreign(r *http.Request, identity auth.Identity) bool {
	open := o.Auth == nil
	if open && slices.Contains(o.Origins, anyOrigin) {
		return false
	}
	return (open || identity.FromCookie()) && o.sameOrigin.Check(r) != nil
}

// may passes requests on that have the permission on the feed in the path. It does not
// ask the store, so a refusal does not reveal whether the feed exists.
func (s *Server) may(p permission) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := s.authorizeFeed(w, r, p); err != nil {
				s.deny(w, r, err)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// mayStream is may for subscribing, by routes that have event streams. It also passes on
// requests for one that have to wait for the decision.
func (s *Server) mayStream(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.authorizeFeed(w, r, subscribing); err != nil && !accessOf(r.Context()).hold(r, err) {
			s.deny(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) authorizeFeed(w http.ResponseWriter, r *http.Request, p permission) error {
	name, err := feedName(r)
	if err != nil {
		return err
	}
	return s.authorize(w, r, p, name)
}

// administering is the permission to delete and trim a feed. It holds for all feeds.
var administering = permission{auth.Admin, "delete or trim", func(g auth.Grant, _ string) bool { return g.Admin() }}

// mayAdmin passes requests on that may delete, trim and list.
func (s *Server) mayAdmin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.authorizeAdmin(w, r); err != nil {
			s.deny(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) authorizeAdmin(w http.ResponseWriter, r *http.Request) error {
	var err error
	if pathParam(r, "feed") == "" {
		err = s.authorize(w, r, administering)
	} else {
		err = s.authorizeFeed(w, r, administering)
	}
	if err == nil && !grantOf(r.Context()).Admin() || errors.Is(err, errForbidden) {
		err = fmt.Errorf("%w: this needs a token with admin", errForbidden)
	}
	return err
}
