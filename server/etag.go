package server

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"github.com/rejoin/rejoin/feed"
)

// Entity tags are made of what decides a body, not of the body. An id stands for
// the same event for ever, in the same store; the time of the newest event
// tells apart what a store gave out, lost in a restore and gave out again.

// tag returns the entity tag of the page.
func (h history) tag(storeID, name string) string {
	return entityTag(storeID, name, h.after, h.end, h.newest.UnixMilli(), h.cursor, h.First, h.Last, h.Closed)
}

func eventTag(storeID string, e *feed.Event) string {
	return entityTag(storeID, e.Feed, e.ID, e.Time.UnixMilli())
}

func entityTag(parts ...any) string {
	sum := sha256.Sum256(fmt.Appendln(nil, parts...))
	return `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
}

// notModified writes the headers for caches, and answers the request if the
// client has what tag stands for.
func notModified(w http.ResponseWriter, r *http.Request, tag, caching string) bool {
	w.Header().Set("ETag", tag)
	w.Header().Set("Cache-Control", caching)
	for _, header := range r.Header.Values("If-None-Match") {
		// No tag of ours has a comma in it.
		for known := range strings.SplitSeq(header, ",") {
			known = strings.TrimPrefix(strings.TrimSpace(known), "W/") // a proxy that compresses weakens it
			if known == tag || known == "*" {
				w.WriteHeader(http.StatusNotModified)
				return true
			}
		}
	}
	return false
}
