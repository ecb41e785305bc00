package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"time"

	"github.com/rejoin/rejoin/cmd/internal/verify"
)

// latecomers subscribe while the store is away, and stay: their streams are
// accepted, and open when it is back. From then on they get everything when
// everybody else does. They ask for few keep-alives: a stream that hears of new
// events only when it sends one would go unnoticed otherwise.
const (
	latecomers          = 4                // five feeds; three blows at most
	latecomersHeartbeat = 12 * time.Second // above the bound of their delays, below tortureArrives
)

// latecomer is one of them, with the publishers of its feeds.
type latecomer struct {
	*verify.Subscriber
	publishers []*verify.Publisher
}

// startLatecomers has subscribers come at random times of a blow, each for feeds
// of its own: of one that is followed already, a node knows enough to open
// another stream without asking the store.
func (s *schedule) startLatecomers(b laidBlow) {
	random := rand.New(rand.NewPCG(b.seed, 2))
	nodes := b.away(s.world)
	s.mu.Lock() // another blow may bring its own
	defer s.mu.Unlock()
	for i := range latecomers {
		n := nodes[random.IntN(len(nodes))]
		at := time.Duration(random.Int64N(int64(b.lasts)))
		count := 1
		if i == latecomers-1 {
			count = 2
		}
		feeds := s.unknown[:count]
		s.unknown = s.unknown[count:]
		l := latecomer{Subscriber: s.subscriber(tortureKind{name: fmt.Sprintf("came during %s", b.name)}, feeds, i)}
		l.Clients = s.subscriberOf(clientHTTP1, []*url.URL{n.url}, l.Random)
		l.Log.Apart("that came while the store was away", bound(boundStore))
		l.Heartbeat = latecomersHeartbeat * slower()
		l.Silence = l.Heartbeat + time.Second
		for j, name := range feeds {
			l.publishers = append(l.publishers, s.publisher(500+10*int(s.made)+j, []string{name}))
		}
		s.subscribers, s.latecomers = append(s.subscribers, l.Subscriber), append(s.latecomers, l)
		s.following(l.Clients, func() error {
			if sleep(s.follow, at) != nil {
				return nil // it is over sooner than it could have been
			}
			return l.Run(s.follow)
		})
	}
}

// publishToLatecomers publishes to their feeds, some before their streams open,
// to be replayed, some afterwards.
func (s *schedule) publishToLatecomers() {
	const each = 5
	for i, l := range s.latecomers {
		for _, p := range l.publishers {
			s.publishing(p.Clients, func() error {
				for n := 1; n <= 2*each; n++ {
					if n == each+1 {
						s.awaitOpen(s.latecomers[i])
					}
					if err := p.Publish(s.publish, n); err != nil {
						return err
					}
				}
				return nil
			})
		}
	}
}

func (s *schedule) awaitOpen(l latecomer) {
	for deadline := time.Now().Add(tortureArrives * slower()); l.Log.Opens() == 0; {
		if time.Now().After(deadline) {
			return // the judge finds that it is unfinished
		}
		time.Sleep(10 * time.Millisecond) // until the stream is open
	}
}
