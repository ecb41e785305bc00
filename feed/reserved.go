package feed

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// NodesFeed is the feed on which nodes report their own figures. Like every reserved
// feed, it has ephemeral events only, and needs no store.
const NodesFeed = "feed.nodes"

// reportType is the type of a report. It has nothing of the server's types, because a
// report is an event like any other to its subscribers.
const reportType = "node"

// reservedPrefix begins the names of the server's own feeds.
const reservedPrefix = "feed."

// Reserved reports whether the feed belongs to the server.
func Reserved(name string) bool { return strings.HasPrefix(name, reservedPrefix) }

// CheckWritable returns an error unless name can name a feed to which clients publish.
// The error wraps ErrInvalid.
func CheckWritable(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if Reserved(name) {
		return fmt.Errorf("%w: feed names that begin with %q belong to the server: clients neither publish to %s nor change it", ErrInvalid, reservedPrefix, quote(name))
	}
	return nil
}

const (
	reportEvery = time.Second
	// reportSpace is the least time between two reports of all nodes together, so that
	// many nodes report more rarely.
	reportSpace = 20 * time.Millisecond
)

// Report makes this node publish what read returns, a JSON value, on [NodesFeed] while
// that has a subscriber on any node: at once when the first one has come, and then about
// every second, or more rarely with more than 50 nodes. It is called once, and ends
// when the hub is closed.
func (h *Hub) Report(read func(context.Context) string) {
	h.goWork(func() { h.reportLoop(read) })
}

func (h *Hub) reportLoop(read func(context.Context) string) {
	next := time.NewTimer(time.Hour)
	next.Stop()
	reporting := false
	for {
		select {
		case <-h.watched:
			if reporting {
				continue // the next report is soon enough
			}
		case <-next.C:
		case <-h.ctx.Done():
			return
		}
		here := h.subscribersHere(NodesFeed) > 0
		if here && !reporting {
			h.signals.send(h.signals.hereNote())
		}
		if reporting = here || h.signals.watched(time.Now()); reporting {
			next.Reset(max(reportEvery, time.Duration(h.Peers()+1)*reportSpace))
			h.report(read(h.ctx))
		}
	}
}

// report hands a report to the subscribers of every node.
func (h *Hub) report(data string) {
	e := Event{Feed: NodesFeed, Type: reportType, Data: data, JSON: true, Time: time.Now().UTC().Truncate(time.Millisecond)}
	h.ephemeral(e)
	h.signals.send(note{Kind: signalReport, Event: &e})
}

// isReport reports whether e, which came from another node, can be a report.
func (e *Event) isReport() bool {
	d := Draft{Feed: e.Feed, Type: e.Type, Data: e.Data, JSON: e.JSON}
	clean, err := d.cleanContent(DefaultEventBytes)
	return err == nil && clean == d && e.Feed == NodesFeed && e.Type == reportType && e.JSON && e.ID == 0
}

// Node returns the name of this node, which other nodes know it by. It is random.
func (h *Hub) Node() string { return h.signals.node }

// followedMost is how many feeds Followed looks through, at the most.
const followedMost = 10_000

// FollowedFeed is a feed and how many subscribers it has on one node.
type FollowedFeed struct {
	Feed        string
	Subscribers int
}

// Followed returns the feeds with the most subscribers on this node, most at most,
// without those of the server. ok is false if the node holds too many feeds to look
// through.
func (h *Hub) Followed(most int) (feeds []FollowedFeed, ok bool) {
	h.mu.Lock()
	if len(h.logs) > followedMost {
		h.mu.Unlock()
		return nil, false
	}
	logs := make([]*log, 0, len(h.logs))
	for _, l := range h.logs {
		logs = append(logs, l)
	}
	h.mu.Unlock()
	for _, l := range logs {
		if n := l.subscribers(); n > 0 && !l.reserved {
			feeds = append(feeds, FollowedFeed{l.feed, n})
		}
	}
	slices.SortFunc(feeds, func(a, b FollowedFeed) int {
		return cmp.Or(cmp.Compare(b.Subscribers, a.Subscribers), strings.Compare(a.Feed, b.Feed))
	})
	return feeds[:min(most, len(feeds))], true
}
