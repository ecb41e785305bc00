package server

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/rejoin/rejoin/feed"
)

// The query parameters that there are, on whatever route. Others are passed over.
var (
	// lists may be given several times, which is as with commas between the values.
	lists = []string{"feed", "types", "control"}
	// single may be given once: to choose one of two values would be a guess at what
	// the client means.
	single = []string{
		"access_token", "after", "before", "close", "envelope", "ephemeral", "from", "gap", "heartbeat",
		"lastEventID", "lastEventId", "last_event_id", "limit", "prefix", "type", "wait",
	}
)

// readQuery parses the query strictly: what cannot be read is refused, not dropped.
// Each parameter has one value in what it returns.
func readQuery(r *http.Request) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: the query cannot be read: %w", feed.ErrInvalid, err)
	}
	for _, name := range single {
		if len(query[name]) > 1 {
			return nil, invalid("the query parameter %s is given more than once", name)
		}
	}
	for _, name := range lists {
		if values := query[name]; len(values) > 1 {
			// An empty one counts as absent.
			values = slices.DeleteFunc(values, func(value string) bool { return value == "" })
			query.Set(name, strings.Join(values, ","))
		}
	}
	return query, nil
}

// readFlag returns the value of a query parameter that is true or false.
func readFlag(query url.Values, name string) (bool, error) {
	switch value := query.Get(name); {
	case !query.Has(name):
		return false, nil
	case value == "true" || value == "false":
		return value == "true", nil
	}
	return false, invalid("the query parameter %s is true or false", name)
}

// refuse returns an error if the query has one of the parameters.
func refuse(query url.Values, why string, names ...string) error {
	for _, name := range names {
		if query.Has(name) {
			return invalid("%s %s", name, why)
		}
	}
	return nil
}
