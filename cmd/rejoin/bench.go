package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/rejoin/rejoin/cmd/internal/bench"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
)

// benchMode is a command of rejoin bench.
type benchMode struct {
	mode                 bench.Mode
	short, long, example string
	flags                func(*cobra.Command, *bench.Options)
}

var benchModes = []benchMode{
	{
		mode:  bench.Fanout,
		short: "Measure deliveries: publish at a rate, or at full speed, to many subscribers",
		long: `Fanout opens the subscribers, spread evenly over the feeds, publishes at --rate
for --duration after a warm-up, and waits until everything has arrived. The
publishes go to the feeds in turn. While a server keeps up, look at its cost of a
delivery, with --pid. A server that does not keep up sends several events in one
write, and that cost means less.`,
		example: "  rejoin bench fanout --subscribers 1000 --feeds 10 --rate 50",
		flags: func(cmd *cobra.Command, o *bench.Options) {
			subscribersFlag(cmd, o, 1000)
			publishersFlag(cmd, o, 1)
			batchFlag(cmd, o)
			paceFlags(cmd, o, 50)
		},
	},
	{
		mode:  bench.Publish,
		short: "Measure publishing, without subscribers",
		long: `Each publisher sends its next request when the last one is answered, or all of
them together at --rate. With --batch, a request has several events, which the
server stores together or not at all.`,
		example: "  rejoin bench publish --publishers 64 --batch 100",
		flags: func(cmd *cobra.Command, o *bench.Options) {
			publishersFlag(cmd, o, 64)
			batchFlag(cmd, o)
			paceFlags(cmd, o, 0)
		},
	},
	{
		mode:  bench.Resume,
		short: "Measure the return of many subscribers at once, each with an old cursor",
		long: `Resume publishes a few events to each feed, and then --backlog more. It opens all
subscribers at once with the cursor before the backlog, and waits until each has
caught up.`,
		example: "  rejoin bench resume --subscribers 500 --backlog 1000",
		flags: func(cmd *cobra.Command, o *bench.Options) {
			subscribersFlag(cmd, o, 1000)
			publishersFlag(cmd, o, 16)
			batchFlag(cmd, o)
			cmd.Flags().IntVar(&o.Backlog, "backlog", 100, "how many events each subscriber has missed")
		},
	},
	{
		mode:  bench.Idle,
		short: "Measure the cost of an idle subscriber: the CPU to open it, and its memory",
		long: `Idle opens the subscribers, waits for --hold, reads the growth of the server's
memory, and publishes one event to each feed to check that every subscriber is
alive. Without --pid it shows only that.`,
		example: "  rejoin bench idle --subscribers 10000 --pid $(pidof rejoin)",
		flags: func(cmd *cobra.Command, o *bench.Options) {
			subscribersFlag(cmd, o, 1000)
			publishersFlag(cmd, o, 16)
			cmd.Flags().DurationVar(&o.Hold, "hold", 3*time.Second, "how long to hold the idle subscribers")
		},
	},
}

func subscribersFlag(cmd *cobra.Command, o *bench.Options, n int) {
	cmd.Flags().IntVar(&o.Subscribers, "subscribers", n, "how many subscribers, each with its own connection")
}

func publishersFlag(cmd *cobra.Command, o *bench.Options, n int) {
	cmd.Flags().IntVar(&o.Publishers, "publishers", n, "how many publishers, each with its own connection; each waits for every answer")
}

func batchFlag(cmd *cobra.Command, o *bench.Options) {
	cmd.Flags().IntVar(&o.Batch, "batch", 1, "events a publish")
}

func paceFlags(cmd *cobra.Command, o *bench.Options, rate float64) {
	cmd.Flags().Float64Var(&o.Rate, "rate", rate, "publishes a second, by all publishers together; 0 means at full speed")
	cmd.Flags().DurationVar(&o.Duration, "duration", 10*time.Second, "how long to publish")
	cmd.Flags().DurationVar(&o.Warmup, "warmup", time.Second, "how long to publish before the measurement, without counting")
}

func newBenchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench MODE",
		Short: "Measure a server, and check every delivery",
		Long: `Bench loads a server with many subscribers and publishers, and checks that every
event reaches every subscriber once and in order. It counts an event as lost if
the server accepted it and a subscriber has not received it when nothing has come
for --drain. The exit code is 1 if any event was lost, repeated or out of order,
or if a publish or a stream failed.

The latency of a delivery begins when its publish was due, not when it could be
sent, and ends when it was read: a server that falls behind cannot hide it. So it
is longer than the delay of rejoin verify, which begins when the server has
answered. "p50 / p99 / max" are the median, the time within which 99 of 100 came,
and the longest.

With --pid, for a server on this machine, bench reads the CPU time and memory of
the process and its children. On a busy machine, deliveries and publishes per
second of the server's CPU are steadier than any other figure. Keep server and
bench on cores of their own: bench reports when it was itself the limit.

At the start the server must answer within 3 seconds. An interrupt, such as Ctrl-C,
ends the measurement and prints what was measured; a second one ends bench at once.

The feeds are new ones, called PREFIX:RUN:NUMBER, and they stay: measure a server
whose store you can throw away. Bench sends the token in REJOIN_TOKEN, if there is
one; it must allow publishing to and reading PREFIX:*.

To compare, --server nchan measures an nginx with nchan, whose locations are /sub/
and /pub/.`,
		Example: `  taskset -c 0 rejoin serve --store sqlite:bench.db &
  taskset -c 1 rejoin bench fanout --subscribers 10000 --rate 2 --pid $!
  taskset -c 1 rejoin bench publish --publishers 64 --batch 100 --pid $!
  rejoin bench resume --url https://events.example.com --subscribers 500 --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	for _, mode := range benchModes {
		cmd.AddCommand(newBenchMode(mode))
	}
	return cmd
}

func newBenchMode(mode benchMode) *cobra.Command {
	o := &bench.Options{Batch: 1}
	var server, peer string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     string(mode.mode),
		Short:   mode.short,
		Long:    mode.long,
		Example: mode.example,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Client, err = newClient(server, client.Options{}); err != nil {
				return err
			}
			var known bool
			if o.Peer, known = bench.PeerCalled(peer); !known {
				return usageError{fmt.Errorf("--server: %q is neither rejoin nor nchan", peer)}
			}
			if err := checkBench(cmd.Flags(), o); err != nil {
				return usageError{err}
			}
			o.Token = os.Getenv(tokenVariable)
			var progress io.Writer // shown at a terminal
			if t, ok := cmd.ErrOrStderr().(terminal); ok {
				progress = t
			}
			result, err := bench.Run(cmd.Context(), mode.mode, *o, progress)
			if result != nil {
				if err := result.Print(cmd.OutOrStdout(), asJSON); err != nil {
					return fmt.Errorf("write standard output: %w", err)
				}
			}
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&server, "url", defaultURL, "the `URL` of the server")
	flags.StringVar(&peer, "server", "rejoin", "what kind of server it is: rejoin or nchan")
	flags.IntVar(&o.Feeds, "feeds", 1, "how many feeds")
	flags.StringVar(&o.Prefix, "prefix", "bench", "the beginning of the names of the feeds")
	flags.IntVar(&o.Size, "size", 120, "bytes of data an event")
	flags.DurationVar(&o.Drain, "drain", 5*time.Second, "after this long without an arrival, missing events count as lost")
	flags.IntSliceVar(&o.PIDs, "pid", nil, "the server's process on this machine, to measure with its children; separate several with commas")
	flags.BoolVar(&asJSON, "json", false, "print the figures as JSON")
	mode.flags(cmd, o)
	return cmd
}

// checkBench returns the first fault of the flags, of which each mode has some.
func checkBench(flags *pflag.FlagSet, o *bench.Options) error {
	for _, count := range []struct {
		flag string
		n    int
		most int
	}{
		{"subscribers", o.Subscribers, 1_000_000},
		{"feeds", o.Feeds, 1_000_000},
		{"publishers", o.Publishers, 10_000},
		{"batch", o.Batch, 1000},
		{"backlog", o.Backlog, 10_000_000},
	} {
		if flags.Lookup(count.flag) != nil && (count.n < 1 || count.n > count.most) {
			return fmt.Errorf("--%s: %d is not from 1 to %d", count.flag, count.n, count.most)
		}
	}
	for flag, d := range map[string]time.Duration{"duration": o.Duration, "drain": o.Drain, "warmup": o.Warmup + 1, "hold": o.Hold + 1} {
		if flags.Lookup(flag) != nil && d <= 0 {
			return fmt.Errorf("--%s: it has to be longer", flag)
		}
	}
	switch {
	case o.Size < bench.SmallestEvent || o.Size > feed.DefaultEventBytes:
		return fmt.Errorf("--size: %d is not from %d, which the marks in the data take, to %d", o.Size, bench.SmallestEvent, feed.DefaultEventBytes)
	case o.Rate < 0 || o.Rate > 1e6:
		return errors.New("--rate: it is from 0 to 1000000")
	case o.Batch > 1 && !o.Peer.Batches:
		return fmt.Errorf("--batch: %s has no batches", o.Peer.Name)
	case o.Subscribers > 0 && o.Subscribers < o.Feeds:
		return fmt.Errorf("--feeds: %d feeds for %d subscribers leave some without any", o.Feeds, o.Subscribers)
	case o.Subscribers > 0 && !o.Peer.Dense && o.Publishers > o.Feeds && flags.Lookup("rate") != nil:
		return fmt.Errorf("--publishers: with %s at most as many as --feeds, or else the order cannot be checked", o.Peer.Name)
	}
	if err := feed.CheckName(o.Prefix + ":run:1"); err != nil {
		return fmt.Errorf("--prefix: %w", err)
	}
	return bench.CheckProcesses(o.PIDs)
}
