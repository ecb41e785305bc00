package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/rejoin/rejoin/cmd/internal/verify"
	"github.com/rejoin/rejoin/feed"
	"github.com/rejoin/rejoin/feed/client"
)

func newVerifyCommand() *cobra.Command {
	o := verify.Options{}
	asJSON := false
	cmd := &cobra.Command{
		Use:   "verify [--url URL]...",
		Short: "Try to catch a deployment losing, repeating or reordering events",
		Example: `  rejoin verify --for 10s
  rejoin verify --url http://node1:8080 --url http://node2:8080 --for 10m`,
		Long: `Verify publishes to feeds of its own, with unique names, and follows them with
subscribers whose connections it cuts time and again. Each attempt and each
connection uses any of the URLs. In the end verify compares the acknowledgements,
the events that each subscriber received on each connection, and the content of
the server. It fails if an event was lost, repeated, out of order, or different
from the published one.

Break things meanwhile: kill nodes, restart Redis and Postgres. Events may come late,
as long as all have arrived --patience after the end. At the start one server must
answer within 3 seconds.

The report has the delay of a delivery: the time from the moment at which the
publisher had the answer that the event is stored, to the moment at which a
subscriber read the event. It is 0 if the subscriber was first. Events that were
replayed to a subscriber that came back do not count. A delay is no failure: the
exit code is 1 for violations, and if nothing was delivered.

An interrupt, such as Ctrl-C, ends the publishing. Events in progress then have 10
seconds to arrive, and verify judges them. If no server answers any more, it gives
no verdict. A second interrupt ends verify at once.

At the end verify deletes its feeds, if the token in REJOIN_TOKEN allows that. The
token must allow publishing to and reading the feeds that begin with --prefix.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, server := range o.Servers {
				if _, err := newClient(server, client.Options{}); err != nil {
					return err
				}
			}
			if err := checkVerify(o); err != nil {
				return usageError{err}
			}
			o.Token, o.Notes = os.Getenv(tokenVariable), cmd.ErrOrStderr()
			report, err := verify.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := report.Print(cmd.OutOrStdout(), asJSON); err != nil {
				return fmt.Errorf("write standard output: %w", err)
			}
			return report.Err()
		},
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&o.Servers, "url", []string{defaultURL}, "a server; repeat the flag for more nodes or proxies of one deployment")
	flags.IntVar(&o.Feeds, "feeds", 5, "how many feeds")
	flags.IntVar(&o.Subscribers, "subscribers", 12, "how many subscribers; one in four follows all the feeds over one connection")
	flags.IntVar(&o.Rate, "rate", 50, "about how many events to publish a second")
	flags.DurationVar(&o.Duration, "for", time.Minute, "how long")
	flags.DurationVar(&o.Patience, "patience", time.Minute, "how long everything may take to arrive after the publishing")
	flags.StringVar(&o.Prefix, "prefix", "rejoin-verify", "the beginning of the names of the feeds")
	flags.BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

// checkVerify returns the first fault of the flags.
func checkVerify(o verify.Options) error {
	switch {
	case o.Feeds < 1 || o.Feeds > 100:
		return errors.New("--feeds: 1 to 100")
	case o.Subscribers < 1 || o.Subscribers > 10_000:
		return errors.New("--subscribers: 1 to 10000")
	case o.Rate < 1 || o.Rate > 10_000:
		return errors.New("--rate: 1 to 10000")
	case o.Duration < time.Second:
		return errors.New("--for: at least 1s")
	case o.Patience < time.Second:
		return errors.New("--patience: at least 1s")
	}
	if err := feed.CheckName(verify.LongestName(o)); err != nil {
		return fmt.Errorf("--prefix: %w", err)
	}
	return nil
}
