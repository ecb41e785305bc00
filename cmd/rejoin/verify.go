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
		Use:   "verify --url URL [--url URL]...",
		Short: "Try to catch a deployment losing, repeating or reordering events",
		Long: `Verify publishes to feeds of its own, under names that nobody else has, and follows
them by subscribers that it cuts off time and again, each attempt and each
connection at any of the URLs. In the end it compares: what was acknowledged,
what each subscriber was sent on each connection, and what the server holds. It
fails if anything was lost, came twice or out of order, or was not what was
published.

Break what you like meanwhile: kill nodes, restart Redis and Postgres. A delay is
no failure, as long as everything has arrived --patience after the end. At the
beginning one server has to answer.

An interrupt ends the publishing. What is under way then has 10 seconds to arrive
and be judged; if no server answers any more, there is no verdict.

The feeds are deleted at the end, where the token in REJOIN_TOKEN may do that; it
has to be good for publishing to and reading what begins with --prefix.`,
		Args: usageArgs(cobra.NoArgs),
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
	flags.StringArrayVar(&o.Servers, "url", []string{defaultURL}, "a server; several nodes or proxies of one deployment, one a flag")
	flags.IntVar(&o.Feeds, "feeds", 5, "how many feeds")
	flags.IntVar(&o.Subscribers, "subscribers", 12, "how many subscribers; one in four follows all the feeds over one connection")
	flags.IntVar(&o.Rate, "rate", 50, "how many events are published in a second, about")
	flags.DurationVar(&o.Duration, "for", time.Minute, "how long")
	flags.DurationVar(&o.Patience, "patience", time.Minute, "how long after that everything may take to be known and to arrive")
	flags.StringVar(&o.Prefix, "prefix", "rejoin-verify", "what the names of the feeds begin with")
	flags.BoolVar(&asJSON, "json", false, "report as JSON")
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
