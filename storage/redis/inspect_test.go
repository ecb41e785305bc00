package redis_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rejoin/rejoin/storage/redis"
	"github.com/rejoin/rejoin/storage/testserver"
)

// TestInspectRules takes rules from a user one by one. Inspect names each, and leaves no
// key behind.
func TestInspectRules(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t)
	url := "redis://rejoin:x@" + server.Addr()
	o := redis.Options{Prefix: "test"}
	for _, test := range []struct {
		rules []any
		lacks []string
	}{
		{nil, nil},
		{[]any{"+time"}, nil},
		{[]any{"-xadd"}, []string{"+xadd"}},
		{[]any{"-@all"}, []string{"+del", "+expire", "+ping", "+publish", "+subscribe", "+xadd", "+xrange", "+xread", "+xrevrange"}},
		{[]any{"resetkeys", "~other:*"}, []string{"~test:*"}},
		{[]any{"resetchannels"}, []string{"&test:*"}},
		{[]any{"-publish", "-subscribe", "-xrevrange"}, []string{"+publish", "+subscribe", "+xrevrange"}},
	} {
		allow(t, server, append([]any{"reset", "on", "nopass", "resetchannels", "~test:*", "&test:*", "+ping",
			"+xadd", "+xread", "+xrange", "+xrevrange", "+expire", "+del", "+publish", "+subscribe"}, test.rules...)...)
		i, err := redis.Inspect(t.Context(), url, o)
		if err != nil {
			t.Errorf("%v: %v", test.rules, err)
			continue
		}
		if diff := cmp.Diff(test.lacks, i.Lacks); diff != "" {
			t.Errorf("%v: %s", test.rules, diff)
		}
		if mayRead := len(test.rules) == 1 && test.rules[0] == "+time"; i.Clock.IsZero() == mayRead || i.Clock.Sub(i.At).Abs() > time.Minute {
			t.Errorf("%v: the clock is %v, at %v", test.rules, i.Clock, i.At)
		}
	}
	if n, err := direct(t, server.URL()).DBSize(t.Context()).Result(); n != 0 || err != nil {
		t.Errorf("%d keys are left, %v", n, err)
	}
	allow(t, server, "resetpass", ">s3cret")
	if _, err := redis.Inspect(t.Context(), url, o); err == nil || !strings.Contains(err.Error(), "WRONGPASS") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a wrong password: %v", err)
	}
	server.Kill()
	if _, err := redis.Inspect(t.Context(), url, o); err == nil || !strings.Contains(err.Error(), server.Addr()) {
		t.Errorf("no server: %v", err)
	}
}

func TestInspectSentinel(t *testing.T) {
	t.Parallel()
	sentinel := testserver.StartSentinel(t, "main", testserver.StartRedis(t))
	gone := testserver.StartRedis(t)
	gone.Kill()
	url := "redis+sentinel://" + sentinel.Addr() + "," + gone.Addr() + "/"
	i, err := redis.Inspect(t.Context(), url+"main", options())
	if err != nil || len(i.Lacks) > 0 || len(i.Faults) != 1 || !strings.Contains(i.Faults[0], "the sentinel "+gone.Addr()+" does not answer") {
		t.Errorf("one sentinel is away: got %+v, %v", i, err)
	}
	_, err = redis.Inspect(t.Context(), url+"other", options())
	if err == nil || !strings.Contains(err.Error(), `the sentinel `+sentinel.Addr()+` knows no master called "other"`) {
		t.Errorf("another master: got %v", err)
	}
}

func TestInspectCluster(t *testing.T) {
	t.Parallel()
	server := testserver.StartRedis(t, "--cluster-enabled", "yes", "--cluster-require-full-coverage", "no")
	c := direct(t, server.URL())
	if err := c.ClusterAddSlotsRange(t.Context(), 0, slots-101).Err(); err != nil {
		t.Fatal(err)
	}
	url := "redis+cluster://" + server.Addr()
	eventually(t, 10*time.Second, "the cluster works", func() bool {
		info, err := c.ClusterInfo(t.Context()).Result()
		return err == nil && strings.Contains(info, "cluster_state:ok")
	})
	i, err := redis.Inspect(t.Context(), url, options())
	if diff := cmp.Diff([]string{"no server has 100 of the 16384 hash slots"}, i.Faults); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
	if err := c.ClusterAddSlotsRange(t.Context(), slots-100, slots-1).Err(); err != nil {
		t.Fatal(err)
	}
	allow(t, server, "+cluster|slots")
	login := "redis+cluster://rejoin:x@" + server.Addr()
	if i, err = redis.Inspect(t.Context(), login, options()); err != nil || !cmp.Equal(i.Lacks, []string{"+asking"}) {
		t.Errorf("without +asking: got %+v, %v", i, err)
	}
	allow(t, server, "+asking")
	if i, err = redis.Inspect(t.Context(), login, options()); err != nil || len(i.Lacks)+len(i.Faults) > 0 {
		t.Errorf("with all rules: got %+v, %v", i, err)
	}
	allow(t, server, "-cluster")
	if i, err = redis.Inspect(t.Context(), login, options()); err != nil || !cmp.Equal(i.Lacks, []string{"+cluster|slots"}) {
		t.Errorf("without +cluster|slots: got %+v, %v", i, err)
	}
}
