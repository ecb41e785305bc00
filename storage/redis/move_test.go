package redis_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/storage/redis"
	"github.com/rejoin/rejoin/storage/testserver"
)

// changing returns options whose store id can change, and the id.
func changing() (redis.Options, *atomic.Pointer[string]) {
	o := options()
	id := &atomic.Pointer[string]{}
	id.Store(new(o.StoreID()))
	o.StoreID = func() string { return *id.Load() }
	return o, id
}

// When the id of the store changes, the buses of that store move to new keys. The old
// keys stay for buses that still use the old id.
func TestMove(t *testing.T) {
	t.Parallel()
	url := testserver.StartRedis(t).URL()
	o, id := changing()
	left := options() // a node that stays with the old store
	left.StoreID = named(o.StoreID())
	teller, n := pair(t, url, o, "chat")
	stayed := open(t, url, left)
	defer stayed.Close()
	e := hear(t, url, o)
	flows(t, teller, n, "chat")
	e.hears(teller, 5*time.Second)

	for _, next := range []string{"second", "third"} {
		before := o.Prefix + ":" + o.StoreID() + ":signals"
		_, _, missed := n.counts()
		id.Store(&next)
		eventually(t, 3*time.Second, "the node looks at the store again", func() bool {
			_, _, now := n.counts()
			return now > missed
		})
		// The node checks all that it receives.
		other := feed.Event{Feed: "chat", ID: n.world.last("chat") + 1, Data: "not ours", Time: time.UnixMilli(1).UTC()}
		if err := tell(stayed, []feed.Event{other}); err != nil {
			t.Fatal(err)
		}
		flows(t, teller, n, "chat")
		e.hears(teller, 5*time.Second)
		if n := direct(t, url).PubSubNumSub(t.Context(), before).Val()[before]; n != 0 {
			t.Errorf("%d listen to the signals of before", n)
		}
		if keys := keysOf(t, direct(t, url), o, "chat"); len(keys) != 1 || !strings.Contains(keys[0], next) {
			t.Errorf("the feed has the keys %q", keys)
		}
	}
	if moved, away := n.log.count("other keys"), n.log.count("away"); moved != 2 || away != 0 {
		t.Errorf("the node moved twice and logged:\n%s", n.log)
	}
}

// Keys that are no longer used expire.
func TestOldKeysExpire(t *testing.T) {
	t.Parallel()
	url := testserver.StartRedis(t).URL()
	o, id := changing()
	o.Expiry = 2 * time.Second
	teller, n := pair(t, url, o, "chat")
	flows(t, teller, n, "chat")
	before := o
	before.StoreID = named(o.StoreID())
	id.Store(new("second"))
	c := direct(t, url)
	eventually(t, 10*time.Second, "the old keys are gone, and the new ones are there", func() bool {
		_ = tell(teller, n.world.commit("chat", 1))
		return len(keysOf(t, c, before, "")) == 0 && len(keysOf(t, c, o, "")) == 2
	})
}

// The log names the server, and each cause once.
func TestCauseIsLogged(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t, "--requirepass", "s3cret")
	_, n := pair(t, server.URL(), options(), "chat")
	n.up(5 * time.Second)
	c := direct(t, server.URL())
	if err := c.ACLSetUser(t.Context(), "default", "-xread", "-xrange", "-xrevrange").Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the lack of a permission is logged", func() bool { return n.log.count("NOPERM") > 0 })
	server.Kill()
	eventually(t, 5*time.Second, "the new cause is logged", func() bool { return n.log.count("for another reason") > 0 })
	server.Start()
	eventually(t, 5*time.Second, "the end is logged", func() bool { return n.log.count("bus available again") > 0 })
	log := n.log.String()
	if lines := strings.Count(log, "\n"); strings.Count(log, "bus=redis://"+server.Addr()) != lines || lines > 8 || strings.Contains(log, "s3cret") {
		t.Errorf("the log:\n%s", log)
	}
}
