package main

import (
	"fmt"
	"net/url"
)

// benchPeer is a kind of server.
type benchPeer struct {
	name       string
	subscribed func(feed string) string // the path of a feed's stream, escaped
	published  func(feed string) string // the path that its events are published to
	dense      bool                     // ids are 1, 2, 3 … in each feed, and a publish answers with its own
	batches    bool                     // a publish may carry several events, as NDJSON
}

var benchPeers = []benchPeer{
	{
		name:       "rejoin",
		subscribed: func(feed string) string { return "/v1/feeds/" + url.PathEscape(feed) + "/events" },
		published:  func(feed string) string { return "/v1/feeds/" + url.PathEscape(feed) + "/events" },
		dense:      true,
		batches:    true,
	},
	{
		name:       "nchan",
		subscribed: func(feed string) string { return "/sub/" + url.PathEscape(feed) },
		published:  func(feed string) string { return "/pub/" + url.PathEscape(feed) },
	},
}

// benchPeerCalled returns the kind of server of that name, or a usage error.
func benchPeerCalled(name string) (benchPeer, error) {
	for _, p := range benchPeers {
		if p.name == name {
			return p, nil
		}
	}
	return benchPeer{}, usageError{fmt.Errorf("--server: %q is neither rejoin nor nchan", name)}
}
