package e2e

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestManyEdges is what can happen to feeds while a subscriber to several of
// them is away. It comes back to the other node each time.
func TestManyEdges(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.start(2, "REJOIN_SUBSCRIBE_RETRY=20ms")
	for name, test := range map[string]func(*manyEdge){
		"a feed added and one removed": testFeedsChange,
		"a feed trimmed":               testTrimmedAway,
		"feeds named twice":            testNamedTwice,
		"a feed never written to":      testNeverWritten,
		"feeds closed":                 testClosedAway,
	} {
		t.Run(name, func(t *testing.T) {
			e := &manyEdge{T: t, c: c, name: strings.ReplaceAll(name, " ", "-") + "."}
			test(e)
			if e.r != nil {
				_, faults := e.r.seen()
				for _, fault := range faults[:len(faults)-len(e.r.gaps)] {
					t.Error(fault)
				}
			}
			if t.Failed() {
				t.Log(e.r)
			}
		})
	}
}

// manyEdge is a subscriber to several feeds that leaves and comes back. The
// feeds have names of one letter, behind that of the test.
type manyEdge struct {
	*testing.T
	c     *cluster
	name  string
	r     *manyRaw
	stop  func()
	comes int
}

func (e *manyEdge) node(i int) *process { return e.c.nodes[i%2] }

// publish publishes n events to each of the feeds, on both nodes in turn.
func (e *manyEdge) publish(n int, feeds string) {
	e.Helper()
	for i := range n {
		for _, name := range feeds {
			call(e, http.MethodPost, fmt.Sprintf("%s/v1/feeds/%s%c/events", e.node(i).url, e.name, name), "text/plain", fmt.Sprintf("event of %c", name), http.StatusCreated)
		}
	}
}

// come subscribes, with the last id that the subscriber has.
func (e *manyEdge) come(feeds, query string) {
	e.Helper()
	e.comeTo(e.node(e.comes), feeds, query)
}

func (e *manyEdge) comeTo(n *process, feeds, query string) {
	e.Helper()
	var names []string
	for _, name := range feeds {
		names = append(names, e.name+string(name))
	}
	address := n.url + "/v1/events?feed=" + url.QueryEscape(strings.Join(names, ",")) + query
	e.comes++
	if e.r == nil {
		e.r = newManyRaw(always(address))
	} else {
		e.r.source = &eventSource{url: always(address), take: e.r.take, from: e.r.source.lastID}
	}
	opens := e.r.opens()
	e.stop = e.r.source.start(e)
	awaitOpen(e.T, func() bool { return e.r.opens() > opens || e.r.source.status() != 0 })
}

// leave waits until the subscriber has n events, and ends its connection.
func (e *manyEdge) leave(n int) {
	e.Helper()
	e.await(n)
	e.stop()
}

func (e *manyEdge) await(n int) {
	e.Helper()
	e.until(func() bool { return e.r.count() >= n })
	if got := e.r.count(); got != n {
		e.Fatalf("got %d events, want %d; %v", got, n, e.r)
	}
}

func (e *manyEdge) until(done func() bool) {
	e.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); {
		if time.Now().After(deadline) {
			events, faults := e.r.seen()
			e.Fatalf("it does not come: %v\n%v\n%v\nclosed %v", e.r, events, faults, e.r.closed)
		}
		time.Sleep(5 * time.Millisecond) // until more has arrived
	}
}

// cursor demands that the subscriber's cursor says this, feed by feed.
func (e *manyEdge) cursor(want string) {
	e.Helper()
	if got := strings.ReplaceAll(e.r.source.lastID, e.name, ""); got != want {
		e.Errorf("the cursor is %s, want %s", got, want)
	}
}

// testFeedsChange: the address of the subscription is what counts. Of the feeds
// in it, those without a cursor start where from says.
func testFeedsChange(e *manyEdge) {
	e.publish(3, "ab")
	e.come("ab", "&from=start")
	e.leave(6)
	e.cursor("a=3,b=3")
	e.publish(2, "abc")
	e.come("bc", "&from=start")
	e.leave(6 + 2 + 2)
	e.cursor("b=5,c=2")
	e.publish(2, "d")
	e.publish(1, "b")
	e.come("dcb", "&from=now")
	e.await(10 + 1)
	e.publish(1, "d")
	e.leave(11 + 1)
	e.cursor("d=3,c=2,b=6")
}

// testTrimmedAway: a gap is of one feed, and as large as what was trimmed past
// the cursor. The others go on without one.
func testTrimmedAway(e *manyEdge) {
	e.publish(5, "abc")
	e.come("abc", "&from=start")
	e.leave(15)
	away := e.r.source.lastID
	e.publish(5, "abc")
	call(e, http.MethodDelete, e.node(0).url+"/v1/feeds/"+e.name+"b/events?before=9", "", "", http.StatusNoContent)
	trimmed := time.Now()
	e.comeTo(e.node(0), "abc", "")
	e.leave(15 + 5 + 2 + 5)
	e.cursor("a=10,b=10,c=10")
	want := []string{fmt.Sprintf(`{"feed":"%sb","after":"5","resumes":9,"reason":"trimmed"}`, e.name)}
	if diff := cmp.Diff(want, e.r.gaps); diff != "" {
		e.Error(diff)
	}
	// The other node may take a second to know, and one of a busy machine longer.
	for first := e.r; ; {
		e.r = newManyRaw(nil)
		e.r.source.lastID = away
		for _, name := range []string{"a", "b", "c"} {
			e.r.events[e.name+name] = make([]string, 5)
		}
		e.comeTo(e.node(1), "abc", "")
		e.until(func() bool { return e.r.count() == 12 && len(e.r.gaps) == 1 || e.r.count() == 15 })
		e.stop()
		if diff := cmp.Diff(first.gaps, e.r.gaps); diff == "" {
			break
		} else if time.Since(trimmed) > 30*time.Second || len(e.r.gaps) > 0 {
			e.Error(diff)
			break
		}
	}
	e.Logf("the other node knew after %v", time.Since(trimmed).Round(time.Millisecond))
}

// testNamedTwice: a feed that is named twice is followed once.
func testNamedTwice(e *manyEdge) {
	e.publish(2, "ab")
	e.come("abab", fmt.Sprintf("&from=start&feed=%sb&feed=%[1]sa", e.name))
	e.leave(4)
	e.cursor("a=2,b=2")
	e.publish(2, "ab")
	e.come("baa", "&from=start")
	e.leave(8)
	e.cursor("b=4,a=4")
	if n := strings.Count(e.r.open[1], `"feed":`); n != 2 {
		e.Errorf("feed.open names %d feeds: %s", n, e.r.open[1])
	}
}

// testNeverWritten: a feed without an event has a cursor like the others.
func testNeverWritten(e *manyEdge) {
	e.publish(2, "a")
	e.come("ax", "&from=now")
	e.publish(1, "a")
	e.leave(1)
	e.cursor("a=3,x=0")
	e.publish(3, "x")
	e.come("ax", "&from=now")
	e.leave(1 + 3)
	e.cursor("a=3,x=3")
	if want := fmt.Sprintf(`{"feed":"%sx","cursor":"0","first":1,"last":0}`, e.name); !strings.Contains(e.r.open[0], want) {
		e.Errorf("feed.open is %s, want in it %s", e.r.open[0], want)
	}
}

// testClosedAway: a feed that is closed does not end the stream of the others;
// when all are, it ends cleanly, and who comes back is told to stay away.
func testClosedAway(e *manyEdge) {
	close := func(i int, name string) {
		call(e, http.MethodPost, e.node(i).url+"/v1/feeds/"+e.name+name+"/close", "", "", http.StatusNoContent)
	}
	closed := func(want map[string]int) {
		e.Helper()
		e.until(func() bool {
			e.r.mu.Lock()
			defer e.r.mu.Unlock()
			return len(e.r.closed) == len(want) && e.r.closed[e.name+"b"] >= want["b"] && e.r.closed[e.name+"a"] >= want["a"]
		})
		for name, n := range want {
			if got := e.r.closed[e.name+name]; got != n {
				e.Errorf("%s was said %d times to be closed, want %d", name, got, n)
			}
		}
	}
	e.publish(2, "ab")
	e.come("ab", "&from=start")
	e.leave(4)
	e.publish(2, "a")
	close(0, "a")
	e.come("ab", "")
	e.await(6)
	closed(map[string]int{"a": 1})
	e.publish(1, "b")
	e.leave(7)
	e.cursor("a=4,b=3")
	e.come("ab", "")
	closed(map[string]int{"a": 2})
	e.publish(1, "b")
	e.await(8)
	close(1, "b")
	closed(map[string]int{"a": 2, "b": 1})
	e.until(func() bool { return e.r.source.status() != 0 })
	if ends := e.r.source.ends(); e.r.source.status() != http.StatusNoContent || len(ends) != 1 || ends[0] != nil {
		e.Errorf("a clean end and 204 would stop the subscriber: %v", e.r)
	}
	// Who has no cursor yet is shown how things are first.
	e.stop()
	late := &manyEdge{T: e.T, c: e.c, name: e.name}
	late.come("ab", "&from=start")
	late.await(8)
	late.until(func() bool { return late.r.source.status() == http.StatusNoContent })
	if _, faults := late.r.seen(); len(faults) > 0 || late.r.opens() != 1 {
		e.Errorf("%v, %v", faults, late.r)
	}
}
