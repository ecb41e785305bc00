package e2e

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/rejoin/rejoin/storage/testserver"
)

// newCutter starts a proxy that carries each connection to a random one of the
// servers at the URLs. It cuts none until [cutShort] or [testserver.Proxy.Cut].
func newCutter(t *testing.T, urls ...string) *testserver.Proxy {
	t.Helper()
	var targets []string
	for _, url := range urls {
		targets = append(targets, strings.TrimPrefix(url, "http://"))
	}
	p := testserver.StartProxy(t, targets[0])
	p.Point(targets...)
	return p
}

// cutShort resets what is connected through p, and cuts each later connection
// after as many bytes from its server as limit returns.
func cutShort(t *testing.T, p *testserver.Proxy, limit func(r *rand.Rand) int64) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("the cuts of %s follow from the seed %d", p.Addr(), seed)
	p.Draw(seed, func(r *rand.Rand) testserver.Fault {
		flow := testserver.Flow{CutAfter: limit(r), End: testserver.Close}
		// Half of the cuts look like an orderly close, half like a crash. Within
		// the head it is always the latter: a browser takes a head that ends early
		// for a whole one, without a type, and never comes back.
		const headBytes = 500 // more than a response head has
		if flow.CutAfter < headBytes || r.IntN(2) == 0 {
			flow.End = testserver.Reset
		}
		return testserver.Fault{ToClient: flow}
	})
	p.Cut(testserver.Reset)
}

// shortLived makes most connections through p end within the first events, but now
// and then one has to live long enough for the largest.
func shortLived(p *testserver.Proxy) func(*rand.Rand) int64 {
	return func(r *rand.Rand) int64 {
		if p.Cuts() < minCuts {
			return 1 + r.Int64N(1500)
		}
		return 1 + r.Int64N(500<<r.IntN(7))
	}
}

// restAfter waits until so many connections have been cut, if they come to that
// soon, and cuts no more.
func restAfter(cuts int64, p *testserver.Proxy) {
	for deadline := time.Now().Add(30 * time.Second); p.Cuts() < cuts && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond) // until more of them have come
	}
	p.Set(testserver.Fault{})
	p.Cut(testserver.Reset)
}
