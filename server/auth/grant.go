package auth

import (
	"slices"
	"time"

	"github.com/rejoin/rejoin/feed"
)

// Grant holds the rights of a request. The zero Grant has none.
type Grant struct {
	subscribe, publish, close []string // patterns
	admin                     bool
	everything                bool
	expires                   time.Time
	subject                   string
	cookie                    bool

	// Of an answer of the application.
	question *Question
	asked    time.Time
}

// MaySubscribe reports whether the grant allows reading the feed: its events, live and
// in pages, and its state.
func (g Grant) MaySubscribe(name string) bool { return g.everything || matches(g.subscribe, name) }

// MayPublish reports whether the grant allows publishing to the feed, and closing it.
func (g Grant) MayPublish(name string) bool { return g.everything || matches(g.publish, name) }

// MayClose reports whether the grant allows closing the feed.
func (g Grant) MayClose(name string) bool { return g.MayPublish(name) || matches(g.close, name) }

// Admin reports whether the grant allows deleting, trimming and listing. It does not
// imply the other rights.
func (g Grant) Admin() bool { return g.everything || g.admin }

// Expires returns when the grant ends; zero means never.
func (g Grant) Expires() time.Time { return g.expires }

// Subject returns the claim sub of the token or of the application's answer. It is empty if
// there is none.
func (g Grant) Subject() string { return g.subject }

// FromCookie reports whether the token came in a cookie, which a browser also sends with
// requests that another site causes.
func (g Grant) FromCookie() bool { return g.cookie }

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return feed.MatchPattern(pattern, name) })
}
