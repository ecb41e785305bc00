package auth

import (
	"context"
	"errors"
	"net/http"
)

// Action is what a request does with feeds.
type Action string

// The actions. Admin is listing, deleting and trimming.
const (
	Subscribe Action = "subscribe"
	Publish   Action = "publish"
	Close     Action = "close"
	Admin     Action = "admin"
)

// Authorizer decides what the senders of requests may do: a [Verifier] of tokens, or a
// [Forward] that asks the application.
type Authorizer interface {
	// Identify returns the sender of r. Its error wraps ErrNoToken, ErrBadToken,
	// ErrUnavailable or feed.ErrInvalid.
	Identify(r *http.Request, facts Facts) (Identity, error)
	// Close ends the authorizer's goroutines.
	Close()
}

// Facts describe a request beside its credentials and its method.
type Facts struct {
	Scheme, Host string // with which the client reached the server
	Address      string // of the client; empty if it has none
	URI          string // path and query, without credentials and without a cursor
}

// Identity is the sender of one request.
type Identity interface {
	// Subject returns the sender's name for the log and for limits. It is empty if that is
	// not known, or not yet.
	Subject() string
	// FromCookie reports whether the request has a credential that a browser also
	// sends with requests that another site causes.
	FromCookie() bool
	// Grant returns the sender's rights, at least those that the action on these feeds
	// needs and that the sender has. The caller checks them. The error is a *Refusal, or
	// wraps ErrUnavailable or feed.ErrInvalid.
	Grant(ctx context.Context, action Action, feeds ...string) (Grant, error)
}

// Everyone is the identity of every sender where there is no authorization. It has all
// rights.
var Everyone Identity = bearer{Grant{everything: true}}

// bearer is the sender of a token, whose rights are known.
type bearer struct{ grant Grant }

func (b bearer) Subject() string { return b.grant.Subject() }

func (b bearer) FromCookie() bool { return b.grant.FromCookie() }

func (b bearer) Grant(context.Context, Action, ...string) (Grant, error) { return b.grant, nil }

// Identify implements [Authorizer].
func (v *Verifier) Identify(r *http.Request, _ Facts) (Identity, error) {
	grant, err := v.Grant(r)
	if err != nil {
		return nil, err
	}
	return bearer{grant}, nil
}

// ErrRefused means that the application does not allow a request.
var ErrRefused = errors.New("the application does not allow this")

// Refusal is the application's answer to a request that it does not allow. It wraps
// ErrBadToken if the application does not know the sender, otherwise ErrRefused.
type Refusal struct {
	Challenges []string // values of WWW-Authenticate
	err        error
}

func (r *Refusal) Error() string { return r.err.Error() }
func (r *Refusal) Unwrap() error { return r.err }

// textError is another error with a text of its own.
type textError struct {
	text  string
	error error
}

func (e *textError) Error() string { return e.text }
func (e *textError) Unwrap() error { return e.error }
