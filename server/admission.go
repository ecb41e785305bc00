package server

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/server/sse"
)

// The reasons for which a subscriber is rejected for now.
var (
	errDraining    = errors.New("this node is stopping")
	errFull        = errors.New("this node has reached its limit of subscribers")
	errAddressFull = errors.New("this address has reached its limit of subscribers")
	errNoMemory    = errors.New("this node has reached its memory limit for clients")
)

// subscriber is a request that waits for events: a stream, or a page with ?wait=.
type subscriber interface {
	admissionSlot() *slot
	drain() // ends it soon
}

// slot is the record of an admitted subscriber.
type slot struct {
	address netip.Addr // zero if the connection has none
	number  int32      // index in subscribers.all, once admitted
	held    int32      // bytes charged to the memory budget for streams
}

func (s *slot) admissionSlot() *slot { return s }

// subscribers holds the admitted subscribers and their limits.
type subscribers struct {
	announced bool // /readyz reports that the server is draining
	draining  bool
	gone      chan struct{} // closed when the server is draining and no subscriber is left
	all       []subscriber
	addresses map[netip.Addr]int // number of subscribers from each
}

// admit admits a subscriber that takes cost more bytes than the least one. The caller
// must call dismiss if it succeeds.
func (s *Server) admit(one subscriber, cost int) error {
	slot, o := one.admissionSlot(), s.options()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.subscribers.draining:
		return errDraining
	case o.Subscribers > 0 && len(s.subscribers.all) >= o.Subscribers:
		return errFull
	case o.SubscribersPerAddress > 0 && s.subscribers.addresses[slot.address] >= o.SubscribersPerAddress:
		return errAddressFull
	case !s.memory.Take(feed.HoldStreams, cost):
		return errNoMemory
	}
	slot.held = int32(cost)
	slot.number = int32(len(s.subscribers.all))
	s.subscribers.all = append(s.subscribers.all, one)
	s.subscribers.addresses[slot.address]++
	return nil
}

// dismiss removes a subscriber. The last one takes its number.
func (s *Server) dismiss(one subscriber) {
	slot := one.admissionSlot()
	s.memory.Give(feed.HoldStreams, int(slot.held))
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.subscribers.all
	last := len(all) - 1
	all[slot.number] = all[last]
	all[slot.number].admissionSlot().number = slot.number
	all[last] = nil
	s.subscribers.all = all[:last]
	if s.subscribers.addresses[slot.address]--; s.subscribers.addresses[slot.address] == 0 {
		delete(s.subscribers.addresses, slot.address)
	}
	s.checkGone()
}

// Subscribers returns the number of admitted subscribers: of streams, whatever the number
// of their feeds, and of pages that wait for an event.
func (s *Server) Subscribers() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.subscribers.all)
}

// checkGone closes gone when the last subscriber has left. The caller holds mu.
func (s *Server) checkGone() {
	if s.subscribers.draining && len(s.subscribers.all) == 0 {
		close(s.subscribers.gone)
	}
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subscribers.announced || s.subscribers.draining
}

func (s *Server) stopAdmitting() []subscriber {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.subscribers.draining {
		s.subscribers.draining = true
		s.checkGone()
	}
	return slices.Clone(s.subscribers.all)
}

// addressOf returns the client's address, as limits count it: all addresses of one IPv6
// network of 64 bits count as one, because a single machine may have them all. It is
// zero for a Unix socket.
func (s *Server) addressOf(r *http.Request) netip.Addr {
	address := s.options().TrustedProxies.Client(r).Address
	if !address.Is6() {
		return address
	}
	network, _ := address.Prefix(64) // succeeds for every IPv6 address
	return network.Addr()
}

// rejectFull counts a subscriber that is not admitted, and answers it.
func (s *Server) rejectFull(w http.ResponseWriter, r *http.Request, why error) {
	s.counters.rejected.Add(1)
	s.refusals.refuse(w, r, refusalOf(why))
	switch {
	case errors.Is(why, errAddressFull):
		answerRetryLater(w, r, http.StatusTooManyRequests, why.Error())
	case errors.Is(why, errDraining):
		if r.ProtoMajor > 1 {
			// The client then opens a connection for its next request, which may
			// reach another node.
			w.Header().Set("Connection", "close")
		}
		answerRetryAfter(w, r, http.StatusServiceUnavailable, why.Error(), jitter(s.options().Retry, 0.5))
	default:
		answerRetryLater(w, r, http.StatusServiceUnavailable, why.Error())
	}
}

// answerRetryLater makes a client come back later. A status other than 200 would stop a
// browser's EventSource, so an event stream gets a retry time and breaks off.
func answerRetryLater(w http.ResponseWriter, r *http.Request, status int, why string) {
	answerRetryAfter(w, r, status, why, jitter(12500*time.Millisecond, 0.6))
}

// answerRetryAfter is answerRetryLater with a given time: a stopping node is replaced
// soon, a full one stays full for longer.
func answerRetryAfter(w http.ResponseWriter, r *http.Request, status int, why string, retry time.Duration) {
	if !accepts(r, "text/event-stream") {
		writeProblem(w, status, why)
		return
	}
	writeStreamHead(w, r, sseFormat{})
	_, _ = w.Write(sse.AppendRetry(nil, retry))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}
