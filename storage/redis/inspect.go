package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Inspection is what [Inspect] finds in a Redis that can be reached.
type Inspection struct {
	// Lacks lists the rules of an ACL that this user does not have, such as +xadd.
	Lacks []string
	// Faults lists the sentinels, or the parts of a cluster, that do not work.
	Faults []string
	// Clock is the server's clock, and At this machine's at the same moment. Both are
	// zero if this user may not read the clock.
	Clock, At time.Time
}

// Location returns where the Redis of a URL is, without names and passwords.
func Location(url string) string {
	a, err := parseURL(url, nil)
	if err != nil {
		return "redis"
	}
	return a.String()
}

// Inspect looks at the Redis at url as a bus with these options would use it, and changes
// nothing. It is an error if Redis cannot be reached, or refuses the password.
func Inspect(ctx context.Context, url string, o Options) (Inspection, error) {
	a, err := parseURL(url, o.TLS)
	if err != nil {
		return Inspection{}, fmt.Errorf("inspect redis: read the URL: %w", err)
	}
	var found Inspection
	switch a.kind {
	case "sentinel":
		found.Faults = a.inspectSentinels(ctx)
	case "cluster":
		found.Lacks, found.Faults = a.inspectCluster(ctx)
		if len(found.Lacks) > 0 {
			return found, nil // without its slots, no other command gets to a cluster
		}
	}
	client := a.client(block + grace)
	defer client.Close()
	if err := client.Ping(ctx).Err(); err != nil && !isDenied(err) {
		return Inspection{}, found.failed(err)
	}
	lacks, err := tryCommands(ctx, client, cmp.Or(o.Prefix, "rejoin"), a.kind == "cluster")
	if err != nil {
		return Inspection{}, found.failed(err)
	}
	found.Lacks = append(found.Lacks, lacks...)
	asked := time.Now()
	if clock, err := client.Time(ctx).Result(); err == nil {
		found.Clock, found.At = clock, asked.Add(time.Since(asked)/2)
	}
	return found, nil
}

// failed returns an error that also has the faults found so far, which may be its cause.
func (i Inspection) failed(err error) error {
	if len(i.Faults) > 0 {
		return fmt.Errorf("inspect redis: %w; %s", err, strings.Join(i.Faults, "; "))
	}
	return fmt.Errorf("inspect redis: %w", err)
}

// tryCommands runs each command that a bus needs, on a key that does not exist, and
// returns the rules that the user lacks. None of the commands creates the key.
func tryCommands(ctx context.Context, client goredis.UniversalClient, prefix string, cluster bool) (lacks []string, err error) {
	name := prefix + ":check-" + strings.ToLower(rand.Text())
	key, channel := name+":{0}:feed:none", name+":signals"
	commands := [][]any{
		{"ping"}, {"xadd", key, "nomkstream", "*", "f", "v"}, {"xread", "count", 1, "streams", key, "0"},
		{"xrange", key, "-", "+", "count", 1}, {"xrevrange", key, "+", "-", "count", 1},
		{"expire", key, 1}, {"del", key}, {"publish", channel, ""},
	}
	if cluster {
		commands = append(commands, []any{"asking"})
	}
	for _, command := range commands {
		err := client.Do(ctx, command...).Err()
		if isDenied(err) {
			lacks = append(lacks, lacked(err, command[0].(string), prefix))
		} else if err != nil && !errors.Is(err, goredis.Nil) {
			return nil, fmt.Errorf("%s: %w", command[0], err)
		}
	}
	subscription := client.Subscribe(ctx, channel)
	defer subscription.Close()
	if _, err := subscription.Receive(ctx); isDenied(err) {
		lacks = append(lacks, lacked(err, "subscribe", prefix))
	} else if err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	slices.Sort(lacks)
	return slices.Compact(lacks), nil
}

func isDenied(err error) bool { return err != nil && goredis.HasErrorPrefix(err, "NOPERM") }

// lacked returns the rule that a refused command needs. Redis names the kind of rule in
// its text alone.
func lacked(err error, command, prefix string) string {
	switch text := err.Error(); {
	case strings.Contains(text, "channel"):
		return "&" + prefix + ":*"
	case strings.Contains(text, "key"):
		return "~" + prefix + ":*"
	}
	return "+" + command
}

// inspectSentinels returns what is wrong with each sentinel.
func (a *address) inspectSentinels(ctx context.Context) (faults []string) {
	quiet()
	for _, addr := range a.options.Addrs {
		s := goredis.NewSentinelClient(&goredis.Options{
			Addr: addr, Username: a.options.SentinelUsername, Password: a.options.SentinelPassword, TLSConfig: a.options.TLSConfig,
			Protocol: 2, DisableIdentity: true, DialTimeout: dialTimeout, DialerRetries: 1, MaxRetries: -1, ReadTimeout: block + grace,
		})
		_, err := s.GetMasterAddrByName(ctx, a.options.MasterName).Result()
		switch {
		case errors.Is(err, goredis.Nil):
			faults = append(faults, fmt.Sprintf("the sentinel %s knows no master called %q", addr, a.options.MasterName))
		case err != nil:
			faults = append(faults, fmt.Sprintf("the sentinel %s does not answer: %v", addr, err))
		}
		_ = s.Close()
	}
	return faults
}

// slotCount is how many hash slots a cluster has.
const slotCount = 16384

// inspectCluster asks each server of the URL which slots are served.
func (a *address) inspectCluster(ctx context.Context) (lacks, faults []string) {
	covered, answered := 0, false
	for _, addr := range a.options.Addrs {
		one := *a
		one.kind, one.options.Addrs = "", []string{addr}
		client := one.client(block + grace)
		slots, err := client.ClusterSlots(ctx).Result()
		_ = client.Close()
		if isDenied(err) {
			return []string{"+cluster|slots"}, nil
		}
		if err != nil {
			faults = append(faults, fmt.Sprintf("the server %s does not answer: %v", addr, err))
			continue
		}
		count := 0
		for _, s := range slots {
			count += s.End - s.Start + 1
		}
		covered, answered = max(covered, count), true
	}
	if answered && covered < slotCount {
		faults = append(faults, fmt.Sprintf("no server has %d of the %d hash slots", slotCount-covered, slotCount))
	}
	return lacks, faults
}
