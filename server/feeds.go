package server

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/rejoin/rejoin/feed"
)

// feedAnswer is a feed in an answer.
type feedAnswer struct {
	Feed    string  `json:"feed"`
	First   feed.ID `json:"first"`
	Last    feed.ID `json:"last"`
	Closed  bool    `json:"closed"`
	Updated string  `json:"updated"`
}

func newFeedAnswer(info feed.Info) feedAnswer {
	return feedAnswer{info.Feed, info.First, info.Last, info.Closed, info.Updated.UTC().Format(timeFormat)}
}

// feeds lists feeds by name: GET /v1/feeds.
func (s *Server) feeds(w http.ResponseWriter, r *http.Request) {
	query, err := readQuery(r)
	var limit int
	if err == nil {
		limit, err = readLimit(query)
	}
	if err == nil {
		err = checkNames(query, "prefix", "after")
	}
	var infos []feed.Info
	if err == nil {
		infos, err = s.hub.List(r.Context(), query.Get("prefix"), query.Get("after"), limit+1)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	answer := struct {
		Feeds []feedAnswer `json:"feeds"`
		Next  string       `json:"next,omitempty"`
	}{Feeds: []feedAnswer{}}
	if len(infos) > limit {
		infos = infos[:limit]
		answer.Next = infos[limit-1].Feed
	}
	for _, info := range infos {
		answer.Feeds = append(answer.Feeds, newFeedAnswer(info))
	}
	writeFresh(w, answer)
}

// feedInfo describes one feed: GET /v1/feeds/{feed}.
func (s *Server) feedInfo(w http.ResponseWriter, r *http.Request) {
	name, err := feedName(r)
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	info, ok, err := s.hub.Info(r.Context(), name)
	if err == nil && !ok {
		err = fmt.Errorf("the feed %s %w", name, errNotFound)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	writeFresh(w, struct {
		feedAnswer
		Subscribers int   `json:"subscribers"`
		Bytes       int64 `json:"bytes"`
	}{newFeedAnswer(info), s.hub.Subscribers(r.Context(), name), info.Bytes})
}

// writeFresh writes an answer that must not be cached.
func writeFresh(w http.ResponseWriter, v any) {
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, "application/json", http.StatusOK, v)
}

// deleteFeed deletes all events of a feed: DELETE /v1/feeds/{feed}. The answer does not
// depend on whether there were any, so clients can repeat it.
func (s *Server) deleteFeed(w http.ResponseWriter, r *http.Request) {
	name, query, err := readDelete(r)
	if err == nil {
		// A request that lacks /events by mistake must not delete the feed.
		err = refuse(query, "is for DELETE /v1/feeds/{feed}/events; here everything would go", "before", "after", "limit")
	}
	if err == nil {
		err = s.hub.Trim(r.Context(), name, feed.MaxID)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.logChange(w, r, "feed deleted", name)
	w.WriteHeader(http.StatusNoContent)
}

// trim deletes a feed's oldest events: DELETE /v1/feeds/{feed}/events?before=43.
func (s *Server) trim(w http.ResponseWriter, r *http.Request) {
	name, query, err := readDelete(r)
	if err == nil {
		err = refuse(query, "is not possible here: all that is below the id before goes", "after", "limit")
	}
	if err == nil && query.Get("before") == "" {
		err = invalid("before is missing: the id below which to delete all events")
	}
	var before feed.ID
	if err == nil {
		before, err = readID("before", query.Get("before"))
	}
	if err == nil {
		err = s.hub.Trim(r.Context(), name, before)
	}
	if err != nil {
		s.writeError(w, r, err)
		return
	}
	s.logChange(w, r, "feed trimmed", name, slog.Uint64("before", uint64(before)))
	w.WriteHeader(http.StatusNoContent)
}

func readDelete(r *http.Request) (name string, query url.Values, err error) {
	if name, err = writableName(r); err != nil {
		return "", nil, err
	}
	query, err = readQuery(r)
	return name, query, err
}

// checkNames returns an error for a parameter that cannot be the name of a feed or the
// beginning of one, which not every store would accept.
func checkNames(query url.Values, params ...string) error {
	for _, param := range params {
		value := query.Get(param)
		if value == "" {
			continue
		}
		if err := feed.CheckName(value); err != nil {
			return invalid("%s: %.200s", param, detailOf(err))
		}
	}
	return nil
}
