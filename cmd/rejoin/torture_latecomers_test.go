package main

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"
)

// latecomers subscribe while the store is away, and stay: their streams are
// accepted, and open when it is back. From then on they get everything when
// everybody else does. They ask for few keep-alives: a stream that hears of new
// events only when it sends one would go unnoticed otherwise.
const (
	latecomers          = 4                // five feeds; three blows at most
	latecomersHeartbeat = 10 * time.Second // above the bound of their delays
)

// startLatecomers has subscribers come at random times of a blow, each for feeds
// of its own: of one that is followed already, a node knows enough to open
// another stream without asking the store.
func (s *schedule) startLatecomers(b laidBlow) {
	random := rand.New(rand.NewPCG(b.seed, 2))
	nodes := b.away(s.world)
	for i := range latecomers {
		n := nodes[random.IntN(len(nodes))]
		at := time.Duration(random.Int64N(int64(b.lasts)))
		s.mu.Lock() // another blow may bring its own
		feeds := s.unknown[int(s.strangers)%len(s.unknown):][:1]
		if i == latecomers-1 {
			feeds = s.unknown[int(s.strangers)%len(s.unknown):][:2]
		}
		s.strangers += uint64(len(feeds))
		w := s.witness(tortureKind{name: fmt.Sprintf("came during %s", b.name)}, feeds, i)
		w.urls = []*url.URL{n.url}
		w.log.Apart("that came while the store was away")
		w.heartbeat = latecomersHeartbeat * slower()
		w.silence = w.heartbeat + 3*time.Second
		s.witnesses = append(s.witnesses, w)
		number := 500 + 10*int(s.made)
		s.mu.Unlock()
		for j, name := range feeds {
			p := s.prover(number+j, []string{name})
			p.pause = 70 * time.Millisecond * slower()
			s.publishing(&p.client, func() error { return p.run(s.publish) })
		}
		s.following(w.client, func() error {
			if sleep(s.follow, at) != nil {
				return nil // it is over sooner than it could have been
			}
			return w.run(s.follow)
		})
	}
}
