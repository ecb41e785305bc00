package server

import (
	"iter"
	"maps"
	"slices"

	"github.com/go-chi/chi/v5"

	"github.com/rejoin/rejoin/feed"
)

// Routes returns the route table.
func (s *Server) Routes() chi.Routes { return s.routes.(chi.Routes) }

// ParseStream returns the events of a streamed body that comes in pieces.
func ParseStream(body iter.Seq[string], limit int) (drafts []feed.Draft, err error) {
	p := bodyParser{feed: "chat", limit: limit, take: func(e streamedEvent) error {
		drafts = append(drafts, e.draft)
		return nil
	}}
	for piece := range body {
		if err := p.write([]byte(piece)); err != nil {
			return drafts, err
		}
	}
	return drafts, p.end()
}

// ErrNoMemory rejects what the memory budget has no room for.
var ErrNoMemory = errNoMemory

// LogEach makes the server log each refusal, however many there are.
func (s *Server) LogEach() { s.refusals.every = 0 }

// RefusalReasons returns all reasons for which a request can be refused.
func (s *Server) RefusalReasons() []string { return slices.Sorted(maps.Keys(s.refusals.reasons)) }

// Refused returns how many requests were refused for the reason.
func (s *Server) Refused(reason string) uint64 { return s.refusals.reasons[reason].count.Load() }

// Refusals returns those of the server.
func (s *Server) Refusals() *Refusals { return s.refusals }
