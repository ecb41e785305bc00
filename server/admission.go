package server

import (
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/rejoin/rejoin/server/sse"
)

// Why a subscriber is turned away for now.
var (
	errDraining    = errors.New("this node is stopping")
	errFull        = errors.New("this node has as many subscribers as it may")
	errAddressFull = errors.New("this address has as many subscribers as one may")
)

// subscribers is who is subscribed, and who may be.
type subscribers struct {
	draining  bool
	streams   map[*stream]struct{}
	addresses map[string]int // subscribers of each
}

// admit takes a stream in. Whoever succeeds dismisses it.
func (s *Server) admit(st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.subscribers.draining:
		return errDraining
	case s.options.Subscribers > 0 && len(s.subscribers.streams) >= s.options.Subscribers:
		return errFull
	case s.options.SubscribersPerAddress > 0 && s.subscribers.addresses[st.address] >= s.options.SubscribersPerAddress:
		return errAddressFull
	}
	s.subscribers.streams[st] = struct{}{}
	s.subscribers.addresses[st.address]++
	return nil
}

func (s *Server) dismiss(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subscribers.streams, st)
	if s.subscribers.addresses[st.address]--; s.subscribers.addresses[st.address] == 0 {
		delete(s.subscribers.addresses, st.address)
	}
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subscribers.draining
}

func (s *Server) stopAdmitting() []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribers.draining = true
	streams := make([]*stream, 0, len(s.subscribers.streams))
	for st := range s.subscribers.streams {
		streams = append(streams, st)
	}
	return streams
}

// addressOf returns the address that a request came from. What a proxy says of
// it could be said by anybody. One machine has a whole network of IPv6
// addresses to choose from, of 64 bits, which counts as one.
func addressOf(r *http.Request) string {
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	address := from.Addr().Unmap().WithZone("")
	if address.Is4() {
		return address.String()
	}
	network, _ := address.Prefix(64) // which every IPv6 address has
	return network.String()
}

// turnAway counts and answers a subscriber that is not admitted.
func (s *Server) turnAway(w http.ResponseWriter, r *http.Request, why error) {
	s.shed.Add(1)
	if errors.Is(why, errAddressFull) {
		shed(w, r, http.StatusTooManyRequests, why.Error())
		return
	}
	shed(w, r, http.StatusServiceUnavailable, why.Error())
}

// shed turns a client away for now. An event stream must not see a status
// other than 200, which stops a browser for good: it gets the time after which
// to come back, and a connection that breaks.
func shed(w http.ResponseWriter, r *http.Request, status int, why string) {
	if !accepts(r, "text/event-stream") {
		writeProblem(w, status, why)
		return
	}
	writeStreamHead(w, eventStream{})
	_, _ = w.Write(sse.AppendRetry(nil, jitter(12500*time.Millisecond, 0.6)))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}
