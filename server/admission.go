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

// Why a subscriber is turned away for now.
var (
	errDraining    = errors.New("this node is stopping")
	errFull        = errors.New("this node has as many subscribers as it may")
	errAddressFull = errors.New("this address has as many subscribers as one may")
	errNoMemory    = errors.New("this node holds as much in memory for its clients as it may")
)

// subscriber is who is connected to hear of events: a stream, or a page that
// waits.
type subscriber interface {
	admissionSlot() *slot
	drain() // has it end soon
}

// slot is a subscriber's place among all of them.
type slot struct {
	address netip.Addr // the zero Addr if the connection has none
	number  int32      // in subscribers.all, while it is there
	held    int32      // bytes of the budget for streams
}

func (s *slot) admissionSlot() *slot { return s }

// subscribers is who is subscribed, and who may be.
type subscribers struct {
	announced bool // draining is what /readyz says
	draining  bool
	gone      chan struct{} // closed when draining and the last has left
	all       []subscriber
	addresses map[netip.Addr]int // subscribers of each
}

// admit takes a subscriber in that costs so many bytes beyond what each does. Whoever
// succeeds dismisses it.
func (s *Server) admit(one subscriber, cost int) error {
	seat := one.admissionSlot()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.subscribers.draining:
		return errDraining
	case s.options.Subscribers > 0 && len(s.subscribers.all) >= s.options.Subscribers:
		return errFull
	case s.options.SubscribersPerAddress > 0 && s.subscribers.addresses[seat.address] >= s.options.SubscribersPerAddress:
		return errAddressFull
	case !s.memory.Take(feed.HoldStreams, cost):
		return errNoMemory
	}
	seat.held = int32(cost)
	seat.number = int32(len(s.subscribers.all))
	s.subscribers.all = append(s.subscribers.all, one)
	s.subscribers.addresses[seat.address]++
	return nil
}

// dismiss lets a subscriber go. The last one gets its number.
func (s *Server) dismiss(one subscriber) {
	seat := one.admissionSlot()
	s.memory.Give(feed.HoldStreams, int(seat.held))
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.subscribers.all
	last := len(all) - 1
	all[seat.number] = all[last]
	all[seat.number].admissionSlot().number = seat.number
	all[last] = nil
	s.subscribers.all = all[:last]
	if s.subscribers.addresses[seat.address]--; s.subscribers.addresses[seat.address] == 0 {
		delete(s.subscribers.addresses, seat.address)
	}
	s.checkGone()
}

// checkGone says when the last subscriber has left. The caller holds mu.
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

// addressOf returns the address that a request came from. What a proxy says of
// it could be said by anybody. One machine has a whole network of IPv6
// addresses to choose from, of 64 bits, which counts as one.
func addressOf(r *http.Request) netip.Addr {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // of a Unix socket, say
	}
	address := from.Addr().Unmap().WithZone("")
	if address.Is4() {
		return address
	}
	network, _ := address.Prefix(64) // which every IPv6 address has
	return network.Addr()
}

// rejectFull counts and answers a subscriber that is not admitted.
func (s *Server) rejectFull(w http.ResponseWriter, r *http.Request, why error) {
	s.rejected.Add(1)
	switch {
	case errors.Is(why, errAddressFull):
		answerRetryLater(w, r, http.StatusTooManyRequests, why.Error())
	case errors.Is(why, errDraining):
		if r.ProtoMajor > 1 {
			// It has the client open a connection for its next request, perhaps
			// to another node.
			w.Header().Set("Connection", "close")
		}
		answerRetryAfter(w, r, http.StatusServiceUnavailable, why.Error(), jitter(s.options.Retry, 0.5))
	default:
		answerRetryLater(w, r, http.StatusServiceUnavailable, why.Error())
	}
}

// answerRetryLater turns a client away for now. An event stream must not see a status
// other than 200, which stops a browser for good: it gets the time after which
// to come back, and a connection that breaks.
func answerRetryLater(w http.ResponseWriter, r *http.Request, status int, why string) {
	answerRetryAfter(w, r, status, why, jitter(12500*time.Millisecond, 0.6))
}

// answerRetryAfter does it for that time: a node that stops is soon replaced, and a full one
// is not.
func answerRetryAfter(w http.ResponseWriter, r *http.Request, status int, why string, retry time.Duration) {
	if !accepts(r, "text/event-stream") {
		writeProblem(w, status, why)
		return
	}
	writeStreamHead(w, sseFormat{})
	_, _ = w.Write(sse.AppendRetry(nil, retry))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}
