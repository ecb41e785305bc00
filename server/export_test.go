package server

import (
	"iter"

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
