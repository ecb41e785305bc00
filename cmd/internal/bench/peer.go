package bench

import (
	"net/url"
	"slices"
)

// Peer is a kind of server.
type Peer struct {
	Name       string
	subscribed func(feed string) string // the path of a feed's stream, escaped
	published  func(feed string) string // the path that its events are published to
	Dense      bool                     // ids are 1, 2, 3 … in each feed, and a publish answers with its own
	Batches    bool                     // a publish may carry several events, as NDJSON
}

var peers = []Peer{
	{
		Name:       "rejoin",
		subscribed: func(feed string) string { return "/v1/feeds/" + url.PathEscape(feed) + "/events" },
		published:  func(feed string) string { return "/v1/feeds/" + url.PathEscape(feed) + "/events" },
		Dense:      true,
		Batches:    true,
	},
	{
		Name:       "nchan",
		subscribed: func(feed string) string { return "/sub/" + url.PathEscape(feed) },
		published:  func(feed string) string { return "/pub/" + url.PathEscape(feed) },
	},
}

// PeerCalled returns the kind of server of that name.
func PeerCalled(name string) (p Peer, ok bool) {
	i := slices.IndexFunc(peers, func(p Peer) bool { return p.Name == name })
	if i < 0 {
		return Peer{}, false
	}
	return peers[i], true
}
